//! Whether a JPEG is all there. Its decoder fills what is missing with grey and says nothing.

/// Start of image, end of image, and start of scan: after the last one's header come compressed pixels.
const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
/// Restart markers stand between compressed pixels; 0 behind a byte of ones makes it one of them.
const STUFFING: u8 = 0;
const RESTARTS: std::ops::RangeInclusive<u8> = 0xd0..=0xd7;
const FILL: u8 = 0xff;

/// Whether the file has its end: walks from segment to segment, so that a thumbnail within does not count, nor what some
/// cameras put behind the picture.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    let mut at = 0;
    loop {
        let Some(marker) = marker(bytes, &mut at) else { return false };
        match marker {
            EOI => return true,
            SOI | 0x01 => {}
            marker => {
                let Some(length) = bytes.get(at..at + 2) else { return false };
                at += usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
                if marker == SOS {
                    skip_pixels(bytes, &mut at);
                }
            }
        }
    }
}

/// The marker at `at`, which is moved behind it. Bytes between segments are passed over, as decoders do.
fn marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        let pair = bytes.get(*at..*at + 2)?;
        match (pair[0], pair[1]) {
            (FILL, FILL) | (FILL, STUFFING) => *at += 1,
            (FILL, marker) => {
                *at += 2;
                return Some(marker);
            }
            _ => *at += 1,
        }
    }
}

/// Moves to the marker that ends the compressed pixels.
fn skip_pixels(bytes: &[u8], at: &mut usize) {
    while let Some(pair) = bytes.get(*at..*at + 2) {
        if pair[0] == FILL && pair[1] != STUFFING && pair[1] != FILL && !RESTARTS.contains(&pair[1]) {
            return;
        }
        *at += 1;
    }
    *at = bytes.len();
}
