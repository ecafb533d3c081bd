//! What a WebP claims, held against the file before its decoder makes room for it.
//!
//! Source: WebP Container Specification; RFC 6386 (VP8), section 9.1.

use super::within_bounds;

/// `RIFF`, the size of the rest, `WEBP`.
const HEADER: usize = 12;
/// Position, size and duration of a frame stand before its chunks.
const FRAME_HEADER: usize = 16;

/// Refuses a file whose EXIF is longer than what is there of it, and one whose compressed pixels are more than a picture may
/// have, whatever the picture around them has. The decoder makes room for both as they are told.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    check_chunks(bytes.get(HEADER..).unwrap_or_default())
}

fn check_chunks(mut rest: &[u8]) -> Result<(), String> {
    while let Some((header, behind)) = rest.split_at_checked(8) {
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let data = behind.get(..length).unwrap_or(behind);
        match &header[..4] {
            b"EXIF" if data.len() < length => return Err("cannot be read: the file is cut".into()),
            b"VP8 " => check_frame(data)?,
            b"ANMF" => check_chunks(data.get(FRAME_HEADER..).unwrap_or_default())?,
            _ => {}
        }
        // Chunks begin at even places.
        rest = behind.get(length + length % 2..).unwrap_or_default();
    }
    Ok(())
}

/// A frame tells its own size behind a tag of three bytes and a start code of three: 14 bits of each side.
fn check_frame(frame: &[u8]) -> Result<(), String> {
    let Some(&[w0, w1, h0, h1]) = frame.get(6..10) else { return Ok(()) };
    let side = |bytes| u32::from(u16::from_le_bytes(bytes) & 0x3fff);
    within_bounds((side([w0, w1]), side([h0, h1])))
}
