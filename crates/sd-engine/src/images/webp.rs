//! What a WebP claims, held against the file before its decoder makes room for it.
//!
//! Source: WebP Container Specification; RFC 6386 (VP8), section 9.1.

use super::within_bounds;

/// `RIFF`, the size of the rest, `WEBP`.
const HEADER: usize = 12;
/// Position, size and duration of a frame stand before its chunks.
const FRAME_HEADER: usize = 16;

/// Refuses a file whose EXIF is longer than what is there of it, and one whose compressed pixels are more than a picture may
/// have, whatever the picture around them has: the decoder makes room for both as they are told. In an animation it also takes
/// for granted that compressed pixels with alpha are as many as their frame has.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    check_chunks(bytes.get(HEADER..).unwrap_or_default(), None)
}

/// The chunks of a file, or of a frame of this size.
fn check_chunks(mut rest: &[u8], frame: Option<(u32, u32)>) -> Result<(), String> {
    let mut behind_alpha = false;
    while let Some((header, behind)) = rest.split_at_checked(8) {
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let data = behind.get(..length).unwrap_or(behind);
        match &header[..4] {
            // Its decoder takes whatever stands there for compressed pixels.
            kind if behind_alpha && frame.is_some() && kind != b"VP8 " => {
                return Err("cannot be read: a frame has alpha and no pixels behind it".into());
            }
            b"EXIF" if data.len() < length => return Err("cannot be read: the file is cut".into()),
            b"VP8 " => check_pixels(data, frame)?,
            b"ANMF" => {
                let (header, chunks) = data.split_at_checked(FRAME_HEADER).unwrap_or((data, &[]));
                check_chunks(chunks, frame_size(header))?;
            }
            _ => {}
        }
        behind_alpha = &header[..4] == b"ALPH";
        // Chunks begin at even places.
        rest = behind.get(length + length % 2..).unwrap_or_default();
    }
    Ok(())
}

/// Behind its position, a frame has its sides less one, in 24 bits each.
fn frame_size(header: &[u8]) -> Option<(u32, u32)> {
    let &[w0, w1, w2, h0, h1, h2] = header.get(6..12)? else { return None };
    let side = |[b0, b1, b2]: [u8; 3]| u32::from_le_bytes([b0, b1, b2, 0]) + 1;
    Some((side([w0, w1, w2]), side([h0, h1, h2])))
}

/// Compressed pixels tell their own size behind a tag of three bytes and a start code of three: 14 bits of each side.
fn check_pixels(pixels: &[u8], frame: Option<(u32, u32)>) -> Result<(), String> {
    let Some(&[w0, w1, h0, h1]) = pixels.get(6..10) else { return Ok(()) };
    let side = |bytes| u32::from(u16::from_le_bytes(bytes) & 0x3fff);
    let (width, height) = (side([w0, w1]), side([h0, h1]));
    if let Some((expected_width, expected_height)) = frame.filter(|size| *size != (width, height)) {
        return Err(format!(
            "cannot be read: {width} x {height} pixels are compressed for a frame of {expected_width} x {expected_height}"
        ));
    }
    within_bounds((width, height))
}
