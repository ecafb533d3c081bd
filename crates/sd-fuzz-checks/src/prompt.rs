//! The language of prompts.

use sd_inference::prompt::{Piece, escape, parse, resolve_wildcards};

/// The longest prompt that the contract lets through.
const MAX_CHARS: usize = 10_000;

/// The first eight bytes are the seed, the rest is the prompt.
///
/// Wildcards are resolved in the same way each time; weights are finite; escaped text means itself.
pub fn prompt(data: &[u8]) {
    let (seed, text) = data.split_at(data.len().min(8));
    let seed = seed.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
    let Ok(text) = std::str::from_utf8(text) else { return };
    if text.chars().count() > MAX_CHARS {
        return;
    }
    let resolved = resolve_wildcards(text, seed);
    assert_eq!(resolved, resolve_wildcards(text, seed));
    for piece in parse(&resolved).iter().flatten() {
        if let Piece::Text { weight, .. } = piece {
            assert!(weight.is_finite(), "{piece:?}");
        }
    }
    // `BREAK` has no escape.
    if !text.contains("BREAK") {
        let pieces = parse(&escape(text)).unwrap();
        let plain: String = pieces.iter().map(plain_text).collect();
        assert_eq!(plain, text);
    }
}

fn plain_text(piece: &Piece) -> &str {
    match piece {
        Piece::Text { text, weight } => {
            assert_eq!(*weight, 1.0, "{text}");
            text
        }
        Piece::Break => panic!("a break that nobody wrote"),
    }
}
