//! What is read of users' files: against PIL (`fixtures/pictures.json`, made by `tools/reference`), within bounds, and never
//! a panic.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn fixture(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/");
    std::fs::read(format!("{folder}{name}")).unwrap()
}

/// Name, bytes and expected pixels of every file.
fn files() -> Vec<(String, ImageData, Value)> {
    let notes: Value = serde_json::from_slice(&fixture("pictures.json")).unwrap();
    let files = notes["files"].as_object().unwrap();
    let file = |(name, expected): (&String, &Value)| {
        (name.clone(), ImageData::new(fixture(&format!("pictures/{name}"))), expected.clone())
    };
    files.iter().map(file).collect()
}

/// The largest difference between what was found and what is expected under `key`.
fn difference(found: &[u8], expected: &Value, key: &str) -> u64 {
    let expected = expected[key].as_array().unwrap();
    assert_eq!(found.len(), expected.len(), "{key}");
    found.iter().zip(expected).map(|(a, b)| u64::from(*a).abs_diff(b.as_u64().unwrap())).max().unwrap()
}

/// 8 bits or 16, grey, palette or colour, transparent or not, turned by EXIF in every way.
#[test]
fn pixels_are_those_of_pil() {
    let files = files();
    assert!(files.len() >= 28, "too few files to mean anything");
    for (name, data, expected) in files {
        let picture = picture(&data).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((u64::from(picture.width()), u64::from(picture.height())), size(&expected), "{name}");
        // Two decoders of JPEG round on their own; mixing with the ground is rounded once or twice.
        let tolerance = if name.ends_with(".jpg") { 4 } else { 1 };
        let found = difference(picture.rgb(), &expected, "rgb");
        assert!(found <= tolerance, "{name}: differs by {found} of 255");
        if expected.get("luma").is_some() {
            let found = difference(mask(&data).unwrap().luma(), &expected, "luma");
            assert!(found <= 1, "{name} as a mask: differs by {found} of 255");
        }
    }
}

fn size(expected: &Value) -> (u64, u64) {
    (expected["width"].as_u64().unwrap(), expected["height"].as_u64().unwrap())
}

#[test]
fn what_is_transparent_is_marked() {
    let (mut with, mut without) = (0, 0);
    for (name, data, expected) in files() {
        if expected.get("alpha").is_none() {
            without += 1;
            assert!(picture_and_mask(&data).unwrap_err().contains("no alpha channel"), "{name}");
            continue;
        }
        with += 1;
        let (picture, mask) = picture_and_mask(&data).unwrap();
        let alpha: Vec<u8> = mask.luma().iter().map(|marked| 255 - marked).collect();
        assert!(difference(&alpha, &expected, "alpha") <= 1, "{name}");
        assert!(difference(picture.rgb(), &expected, "rgb") <= 1, "{name}");
    }
    assert!(with >= 6 && without >= 6);
}

#[test]
fn of_an_animation_the_first_picture_is_taken_and_that_is_said() {
    for (name, data, _) in files() {
        assert_eq!(note(&data).is_some(), name.starts_with("animated"), "{name}");
    }
    assert_eq!(note(&ImageData::new(*b"hello")), None);
}

#[test]
fn other_files_are_refused() {
    for bytes in [&b"hello"[..], b"GIF89a\x01\0\x01\0", b"", b"\x89PNG", b"RIFF"] {
        let error = read_picture(bytes).unwrap_err();
        assert!(error == "is no PNG, JPEG or WebP image" || error.starts_with("cannot be read"), "{error}");
    }
}

/// Cut anywhere, a file is refused, or nothing of its pixels was in what is missing.
/// The decoder panics over both: found by the fuzzer `picture`.
#[test]
fn pixels_of_another_size_than_their_frame_are_refused() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/picture");
    for (name, why) in [
        ("webp_alpha_of_another_size", "2 x 0 pixels are compressed for a frame of 6 x 4"),
        ("webp_alpha_without_pixels", "alpha and no pixels"),
    ] {
        let bytes = std::fs::read(corpus.join(name)).unwrap();
        for refused in [read_picture(&bytes).err(), crate::read_texts(&bytes).err()] {
            let told = refused.unwrap();
            assert!(told.contains(why), "{told}");
        }
    }
}

#[test]
fn a_decoder_that_panics_refuses_the_file() {
    let read = |bytes: &[u8]| guarded(|| Ok(bytes[4]));
    assert_eq!(read(b"12345"), Ok(b'5'));
    assert!(read(b"123").unwrap_err().contains("decoder"));
}

#[test]
fn cut_files_are_refused() {
    for name in [
        "rgba.png",
        "bits16_3.png",
        "progressive.jpg",
        "orientation_3.jpg",
        "gray.jpg",
        "rgb.webp",
        "animated.webp",
    ] {
        let whole = fixture(&format!("pictures/{name}"));
        let expected = read_picture(&whole).unwrap();
        let mut refused = 0;
        for length in 0..whole.len() {
            match read_picture(&whole[..length]) {
                Ok(picture) => assert!(picture == expected, "{name} cut to {length} bytes"),
                Err(error) => {
                    refused += 1;
                    assert!(error.starts_with("cannot be read") || error.starts_with("is no"), "{error}");
                }
            }
        }
        assert!(refused > whole.len() / 2, "{name}: only {refused} of {} cuts were noticed", whole.len());
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

fn bomb_png(width: u32, height: u32) -> Vec<u8> {
    let mut bomb = fixture("pictures/rgb.png");
    // Width and height stand in the IHDR chunk; its checksum follows.
    bomb[16..20].copy_from_slice(&width.to_be_bytes());
    bomb[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    bomb
}

fn bomb_jpeg(width: u16, height: u16) -> Vec<u8> {
    let mut bomb = fixture("pictures/gray.jpg");
    // Height and width stand behind the length and the precision of the frame header.
    let frame = bomb.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    bomb[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    bomb[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    bomb
}

/// A lossless WebP: 14 bits of each side less 1 behind the signature.
fn bomb_webp(width: u32, height: u32) -> Vec<u8> {
    let bits = (width - 1) | (height - 1) << 14;
    let payload = [&[0x2f][..], &bits.to_le_bytes(), &[0; 11]].concat();
    let chunk = [&b"VP8L"[..], &(payload.len() as u32).to_le_bytes(), &payload].concat();
    [&b"RIFF"[..], &(chunk.len() as u32 + 4).to_le_bytes(), b"WEBP", &chunk].concat()
}

/// A file of some hundred bytes that declares a huge picture is refused by what it declares, with the limits.
#[test]
fn bombs_are_refused_before_they_are_decoded() {
    for (name, bytes, declared) in [
        ("png", bomb_png(8191, 8191), "8191 x 8191"),
        ("png", bomb_png(8193, 1), "8193 x 1"),
        ("png", bomb_png(0x7fff_ffff, 0x7fff_ffff), "2147483647 x 2147483647"),
        ("jpeg", bomb_jpeg(65535, 65535), "65535 x 65535"),
        ("webp", bomb_webp(16383, 16383), "16383 x 16383"),
    ] {
        let error = read_picture(&bytes).unwrap_err();
        assert!(
            error.starts_with(&format!("has {declared} pixels; at most 8192 a side and")),
            "{name}: {error}"
        );
        assert!(error.contains(&MAX_INPUT_PIXELS.to_string()), "{name}: {error}");
        assert!(mask(&ImageData::new(bytes)).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Bytes behind every signature.
    #[test]
    fn arbitrary_bytes_never_panic(kind in 0usize..4, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let signature: &[u8] = [&b""[..], b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", b"\xff\xd8\xff\xe0", b"RIFF\xff\0\0\0WEBPVP8"][kind];
        everything(&[signature, &bytes].concat());
    }

    /// Real files with some bytes changed, so that more than the header is reached.
    #[test]
    fn damaged_files_never_panic(file in 0usize..100, damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let files = files();
        let mut bytes = files[file % files.len()].1.bytes().to_vec();
        for (index, value) in damage {
            let place = index.index(bytes.len());
            bytes[place] = value;
        }
        everything(&bytes);
    }
}

/// All that is done with a user's file.
fn everything(bytes: &[u8]) {
    let data = ImageData::new(bytes.to_vec());
    let _ = (picture(&data), mask(&data), picture_and_mask(&data), note(&data));
    let _ = crate::metadata::read_texts(bytes);
}
