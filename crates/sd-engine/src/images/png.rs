//! The chunks of a PNG. Some are compressed - a colour profile, texts - and a few kilobytes of them unpack to gigabytes: the
//! decoder is given those alone that are wanted, and so never unpacks the others.
//!
//! Source: Portable Network Graphics (PNG) Specification, third edition, chapter 5.

/// What stands before the first chunk.
const SIGNATURE: usize = 8;
/// Length, kind and checksum of a chunk.
const AROUND_DATA: usize = 12;

/// The most bytes that one row of a picture has: 131,072 pixels of 16 bits with alpha.
const ROW: u64 = 1 << 20;

/// What a chunk is.
pub(crate) type Kind = [u8; 4];

/// A chunk that is all there.
struct Chunk<'a> {
    kind: Kind,
    data: &'a [u8],
    /// With length, kind and checksum.
    whole: &'a [u8],
}

/// The chunks up to the first that is cut.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = bytes.get(SIGNATURE..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        let kind = *rest.get(4..)?.first_chunk()?;
        let (whole, behind) = rest.split_at_checked(length.checked_add(AROUND_DATA)?)?;
        rest = behind;
        Some(Chunk { kind, data: &whole[8..8 + length], whole })
    })
}

/// The file with those chunks alone that `keeps` says of their kind and data. From a chunk that is cut on, it is as it was:
/// the decoder tells what is wrong with it.
pub(crate) fn with_only(bytes: &[u8], mut keeps: impl FnMut(&Kind, &[u8]) -> bool) -> Vec<u8> {
    let (signature, _) = bytes.split_at(SIGNATURE.min(bytes.len()));
    let (mut kept, mut seen) = (signature.to_vec(), signature.len());
    for chunk in chunks(bytes) {
        seen += chunk.whole.len();
        if keeps(&chunk.kind, chunk.data) {
            kept.extend_from_slice(chunk.whole);
        }
    }
    kept.extend_from_slice(&bytes[seen..]);
    kept
}

/// What the decoder may keep beside the pixels of such a file: a chunk, which is read into room that may be twice as large, what
/// it says, and a row.
pub(crate) fn limit(bytes: &[u8]) -> u64 {
    3 * bytes.len() as u64 + ROW
}

/// Whether a chunk says what the pixels are, or which side of them is up. None of these is compressed but the pixels.
pub(crate) fn is_of_the_picture(kind: &Kind) -> bool {
    let critical = kind[0].is_ascii_uppercase();
    critical || kind == b"tRNS" || kind == b"eXIf"
}

/// Whether the file is an animation: its control chunk stands before the pixels.
pub(super) fn is_animated(bytes: &[u8]) -> bool {
    chunks(bytes).take_while(|chunk| &chunk.kind != b"IDAT").any(|chunk| &chunk.kind == b"acTL")
}
