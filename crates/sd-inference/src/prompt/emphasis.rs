//! `(word:1.2)`, `[word]` and `BREAK`: the syntax that the documentation of AUTOMATIC1111's web UI calls attention.

use super::{ESCAPED, escaped};

/// The largest weight, up or down.
pub const MAX_WEIGHT: f64 = 100.0;
/// What one pair of round brackets multiplies by, and one pair of square ones divides by.
const STEP: f64 = 1.1;
/// The word that ends a chunk.
const BREAK: &str = "BREAK";

/// A part of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Text, and how much it counts: 1 where nothing is said.
    Text {
        /// The text, without syntax.
        text: String,
        /// Its weight.
        weight: f64,
    },
    /// What follows begins a new chunk.
    Break,
}

/// A weight that nothing good can come of.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("weighted {weight} at `{text}`, but must be {limit}")]
pub struct WeightError {
    /// The weight as it was written, or as nested brackets give it.
    pub weight: String,
    /// The beginning of what it belongs to.
    pub text: String,
    /// What would be accepted.
    pub limit: String,
}

/// Reads the weights of a prompt.
///
/// `(x)` multiplies by 1.1, `[x]` divides by 1.1, `(x:1.5)` multiplies by 1.5; brackets nest. A bracket that nobody
/// closes reaches to the end; one that closes nothing is text. A backslash before `( ) [ ] { } |` or itself makes it text.
/// The word `BREAK`, in capitals, is taken out with the spaces around it. Neighbours of one weight are joined.
///
/// ```
/// use sd_inference::prompt::{Piece, parse};
///
/// let text = |text: &str, weight| Piece::Text { text: text.into(), weight };
/// assert_eq!(parse("a (red:1.5) circle")?, [text("a ", 1.0), text("red", 1.5), text(" circle", 1.0)]);
/// # Ok::<(), sd_inference::prompt::WeightError>(())
/// ```
///
/// # Errors
/// [`WeightError`] when a weight is no number or beyond [`MAX_WEIGHT`].
pub fn parse(prompt: &str) -> Result<Vec<Piece>, WeightError> {
    let mut parser = Parser::default();
    let mut rest = prompt;
    while !rest.is_empty() {
        rest = &rest[parser.token(rest)?..];
    }
    parser.finish()
}

/// `text` such that [`parse`] gives it back as it is, with the weight 1; but for `BREAK`, which has no escape: encoders
/// read lower case, so write `break`.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if ESCAPED.contains(&c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// The pieces so far, and where the brackets that are still open began. Round and square ones need not nest.
#[derive(Default)]
struct Parser {
    pieces: Vec<Piece>,
    round: Vec<usize>,
    square: Vec<usize>,
}

impl Parser {
    /// Reads one token at the start of `rest`, which is not empty; returns its length.
    fn token(&mut self, rest: &str) -> Result<usize, WeightError> {
        if let Some(literal) = escaped(rest) {
            self.text(literal.to_string());
            return Ok(1 + literal.len_utf8());
        }
        let length = match rest.find(['\\', '(', ')', '[', ']', ':']) {
            Some(0) => return self.mark(rest),
            Some(length) => length,
            None => rest.len(),
        };
        self.words(&rest[..length]);
        Ok(length)
    }

    /// Reads a bracket, a weight, or a mark that turns out to be text.
    fn mark(&mut self, rest: &str) -> Result<usize, WeightError> {
        match rest.as_bytes()[0] {
            b'(' => self.round.push(self.pieces.len()),
            b'[' => self.square.push(self.pieces.len()),
            b')' => match self.round.pop() {
                Some(from) => self.multiply(from, STEP),
                None => self.text(")".into()),
            },
            b']' => match self.square.pop() {
                Some(from) => self.multiply(from, 1.0 / STEP),
                None => self.text("]".into()),
            },
            b':' if !self.round.is_empty() => {
                if let Some((written, length)) = weight(rest) {
                    let from = self.round.pop().unwrap_or(self.pieces.len());
                    let weight = written.parse().ok().filter(|weight: &f64| weight.is_finite());
                    let weight = weight.ok_or_else(|| refusal(written, &self.pieces[from..]))?;
                    self.multiply(from, weight);
                    return Ok(length);
                }
                self.text(":".into());
            }
            other => self.text(char::from(other).to_string()),
        }
        Ok(1)
    }

    fn text(&mut self, text: String) {
        if !text.is_empty() {
            self.pieces.push(Piece::Text { text, weight: 1.0 });
        }
    }

    /// Text without marks, in which `BREAK` may stand.
    fn words(&mut self, text: &str) {
        let mut rest = text;
        while let Some(at) = find_break(rest) {
            self.text(rest[..at].trim_end().to_owned());
            self.pieces.push(Piece::Break);
            rest = rest[at + BREAK.len()..].trim_start();
        }
        self.text(rest.to_owned());
    }

    fn multiply(&mut self, from: usize, factor: f64) {
        for piece in &mut self.pieces[from..] {
            if let Piece::Text { weight, .. } = piece {
                *weight *= factor;
            }
        }
    }

    fn finish(mut self) -> Result<Vec<Piece>, WeightError> {
        for from in std::mem::take(&mut self.round) {
            self.multiply(from, STEP);
        }
        for from in std::mem::take(&mut self.square) {
            self.multiply(from, 1.0 / STEP);
        }
        let mut joined: Vec<Piece> = Vec::new();
        for piece in self.pieces {
            if let Piece::Text { weight, .. } = &piece
                && (weight.is_nan() || weight.abs() > MAX_WEIGHT)
            {
                return Err(refusal(&weight.to_string(), &[piece]));
            }
            match (joined.last_mut(), &piece) {
                (Some(Piece::Text { text, weight }), Piece::Text { text: more, weight: same })
                    if weight == same =>
                {
                    text.push_str(more);
                }
                _ => joined.push(piece),
            }
        }
        Ok(joined)
    }
}

/// The number and the length of `: 1.2 )` at the start of `rest`.
fn weight(rest: &str) -> Option<(&str, usize)> {
    let close = rest.find(')')?;
    let written = rest.get(1..close)?.trim();
    let digits = written.strip_prefix(['+', '-']).unwrap_or(written);
    let is_digit = |c: char| c.is_ascii_digit();
    let shaped = digits.contains(is_digit) && digits.chars().all(|c| is_digit(c) || c == '.');
    shaped.then_some((written, close + 1))
}

/// Where `BREAK` stands as a word of its own.
fn find_break(text: &str) -> Option<usize> {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    let apart = |at: &usize| {
        let (before, after) = (&text[..*at], &text[at + BREAK.len()..]);
        !before.ends_with(in_word) && !after.starts_with(in_word)
    };
    text.match_indices(BREAK).map(|(at, _)| at).find(apart)
}

fn refusal(weight: &str, pieces: &[Piece]) -> WeightError {
    let text = pieces.iter().map(|piece| match piece {
        Piece::Text { text, .. } => text.as_str(),
        Piece::Break => " ",
    });
    WeightError {
        weight: weight.chars().take(20).collect(),
        text: text.flat_map(str::chars).take(40).collect(),
        limit: format!("weighted between -{MAX_WEIGHT} and {MAX_WEIGHT}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str, weight: f64) -> Piece {
        Piece::Text { text: text.into(), weight }
    }

    /// The examples of the documentation of `parse_prompt_attention` in AUTOMATIC1111's web UI, with its numbers.
    #[test]
    fn the_documented_examples_give_the_documented_weights() {
        for (prompt, expected) in [
            ("normal text", vec![text("normal text", 1.0)]),
            ("an (important) word", vec![text("an ", 1.0), text("important", 1.1), text(" word", 1.0)]),
            ("(unbalanced", vec![text("unbalanced", 1.1)]),
            ("\\(literal\\]", vec![text("(literal]", 1.0)]),
            ("(unnecessary)(parens)", vec![text("unnecessaryparens", 1.1)]),
            (
                "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
                vec![
                    text("a ", 1.0),
                    text("house", 1.573_000_000_000_000_4),
                    text(" ", 1.1),
                    text("on", 1.0),
                    text(" a ", 1.1),
                    text("hill", 0.55),
                    text(", sun, ", 1.1),
                    text("sky", 1.464_100_000_000_000_6),
                    text(".", 1.1),
                ],
            ),
        ] {
            assert_eq!(parse(prompt).unwrap(), expected, "{prompt}");
        }
    }

    #[test]
    fn brackets_weights_and_escapes_at_the_edges() {
        for (prompt, expected) in [
            ("", vec![]),
            ("()", vec![]),
            ("[a]", vec![text("a", 1.0 / 1.1)]),
            ("[a", vec![text("a", 1.0 / 1.1)]),
            ("a) b]", vec![text("a) b]", 1.0)]),
            ("a:1.2) b", vec![text("a:1.2) b", 1.0)]),
            ("(a: +1.5 )", vec![text("a", 1.5)]),
            ("(a:-.5)", vec![text("a", -0.5)]),
            ("(a:b)", vec![text("a:b", 1.1)]),
            ("(a:...)", vec![text("a:...", 1.1)]),
            ("(a:1.2", vec![text("a:1.2", 1.1)]),
            ("[a:1.2]", vec![text("a:1.2", 1.0 / 1.1)]),
            (r"\\(a)", vec![text(r"\", 1.0), text("a", 1.1)]),
            (r"a\b\{c\|d\}", vec![text(r"a\b{c|d}", 1.0)]),
            ("(a [b) c]", vec![text("a ", 1.1), text("b", 1.1 / 1.1), text(" c", 1.0 / 1.1)]),
            ("(é:2)", vec![text("é", 2.0)]),
        ] {
            assert_eq!(parse(prompt).unwrap(), expected, "{prompt}");
        }
    }

    #[test]
    fn a_break_is_a_word_in_capitals() {
        for (prompt, expected) in [
            ("a BREAK b", vec![text("a", 1.0), Piece::Break, text("b", 1.0)]),
            ("BREAK", vec![Piece::Break]),
            ("a\n BREAK\nBREAK ", vec![text("a", 1.0), Piece::Break, Piece::Break]),
            ("(a BREAK b:1.2)", vec![text("a", 1.2), Piece::Break, text("b", 1.2)]),
            ("a break BREAKING outBREAK", vec![text("a break BREAKING outBREAK", 1.0)]),
            ("a,BREAK.b", vec![text("a,", 1.0), Piece::Break, text(".b", 1.0)]),
        ] {
            assert_eq!(parse(prompt).unwrap(), expected, "{prompt}");
        }
    }

    #[test]
    fn weights_beyond_reason_are_refused_with_figures() {
        for (prompt, parts) in [
            ("a (cat:101)", ["101", "`cat`", "between -100 and 100"]),
            ("a (cat:-100.5)", ["-100.5", "`cat`", "between -100 and 100"]),
            ("a (cat:1.2.3)", ["1.2.3", "`cat`", "between -100 and 100"]),
            ("((cat:99):99)", ["9801", "`cat`", "between -100 and 100"]),
        ] {
            let message = parse(prompt).unwrap_err().to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{prompt}: {message}");
        }
        assert!(parse(&format!("{}cat", "(".repeat(48))).is_ok());
        assert!(parse(&format!("{}cat", "(".repeat(49))).is_err());
        assert!(parse(&format!("(a:{})", "9".repeat(400))).is_err());
        assert_eq!(parse("(a:100)").unwrap(), [text("a", 100.0)]);
    }

    /// Pieces as a prompt that means them.
    fn written(pieces: &[Piece]) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text { text, weight } => format!("({}:{weight:.60})", escape(text)),
            Piece::Break => " BREAK ".into(),
        };
        pieces.iter().map(piece).collect()
    }

    proptest! {
        #[test]
        fn whatever_is_written_parses(prompt in r"(\PC|[()\[\]\\:|{}., 0-9-]|BREAK){0,60}") {
            if let Ok(pieces) = parse(&prompt) {
                let finite = |piece: &Piece| match piece {
                    Piece::Text { weight, text } => weight.abs() <= MAX_WEIGHT && !text.is_empty(),
                    Piece::Break => true,
                };
                prop_assert!(pieces.iter().all(finite));
            }
        }

        #[test]
        fn text_without_syntax_is_itself(prompt in r"[^()\[\]\\]{1,60}") {
            prop_assume!(!prompt.contains(BREAK));
            prop_assert_eq!(parse(&prompt).unwrap(), [text(&prompt, 1.0)]);
        }

        #[test]
        fn escaped_text_is_itself(prompt in r"[a-z()\[\]\\:|{}., 0-9]{1,60}") {
            prop_assert_eq!(parse(&escape(&prompt)).unwrap(), [text(&prompt, 1.0)]);
        }

        #[test]
        fn what_is_written_out_reads_back(prompt in r"([a-z :.,é]|[()\[\]]|\\[()\[\]\\|{}]|:[0-9]\.[0-9]\)| BREAK ){0,40}") {
            let pieces = parse(&prompt);
            prop_assume!(pieces.is_ok());
            let pieces = pieces.unwrap();
            let again = parse(&written(&pieces)).unwrap();
            prop_assert_eq!(pieces.len(), again.len());
            for (piece, again) in pieces.iter().zip(&again) {
                match (piece, again) {
                    (Piece::Text { text, weight }, Piece::Text { text: same, weight: close }) => {
                        prop_assert_eq!(text, same);
                        prop_assert!((weight - close).abs() <= 1e-12 * weight.abs());
                    }
                    _ => prop_assert_eq!(piece, again),
                }
            }
        }
    }
}
