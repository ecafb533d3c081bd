//! The memory that a picture from outside takes, whatever its file claims or holds compressed.
#![allow(clippy::unwrap_used)]

use std::alloc::System;
use std::io::Cursor;

use sd_engine::{read_picture, read_texts, transparent_mask};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// So much is packed into some hundred kilobytes.
const PACKED: usize = 64 << 20;
/// Behind the signature and the chunk with the size.
const BEHIND_HEADER: usize = 33;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../../fixtures/pictures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

fn png_chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let checked = [kind, data].concat();
    [&(data.len() as u32).to_be_bytes()[..], &checked, &crc32(&checked).to_be_bytes()].concat()
}

/// A small PNG with these chunks before its pixels.
fn png_with(chunks: &[u8]) -> Vec<u8> {
    let whole = fixture("rgb.png");
    [&whole[..BEHIND_HEADER], chunks, &whole[BEHIND_HEADER..]].concat()
}

/// `length` equal letters, compressed with zlib: what an encoder writes into a text chunk.
fn packed(length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(Cursor::new(&mut bytes), 1, 1);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.add_ztxt_chunk("k".into(), "a".repeat(length)).unwrap();
    encoder.write_header().unwrap().write_image_data(&[0]).unwrap();
    let at = bytes.windows(4).position(|kind| kind == b"zTXt").unwrap();
    let length = u32::from_be_bytes(*bytes[at - 4..].first_chunk().unwrap()) as usize;
    // Behind the keyword, its end and the method.
    bytes[at + 4..][..length][3..].to_vec()
}

fn webp_chunk(kind: &[u8; 4], length: usize, data: &[u8]) -> Vec<u8> {
    [&kind[..], &(length as u32).to_le_bytes(), data].concat()
}

/// A WebP with a canvas of 8 x 8, and what the bits of `flags` promise.
fn webp(flags: u8, chunks: &[u8]) -> Vec<u8> {
    let canvas = webp_chunk(b"VP8X", 10, &[flags, 0, 0, 0, 7, 0, 0, 7, 0, 0]);
    let rest = [b"WEBP", &canvas[..], chunks].concat();
    webp_chunk(b"RIFF", rest.len(), &rest)
}

/// A key frame with `side` pixels each way, of which nothing is there.
fn frame(side: u16) -> Vec<u8> {
    let [low, high] = side.to_le_bytes();
    let frame = [&[0x10, 0, 0, 0x9d, 0x01, 0x2a, low, high, low, high][..], &[0; 54]].concat();
    webp_chunk(b"VP8 ", frame.len(), &frame)
}

/// A JPEG with 64 KiB of each kind of segment that is collected.
fn jpeg_with_profiles() -> Vec<u8> {
    let whole = fixture("gray.jpg");
    let segment = |marker: u8, head: &[u8]| {
        let data = [head, &vec![0; 65_533 - head.len()]].concat();
        [&[0xff, marker, 0xff, 0xff][..], &data].concat()
    };
    let profiles: Vec<u8> =
        (1..=60).flat_map(|part| segment(0xe2, &[b"ICC_PROFILE\0", &[part, 60][..]].concat())).collect();
    let exif: Vec<u8> = (0..20).flat_map(|_| segment(0xe1, b"Exif\0\0MM\0\x2a\0\0\0\x08")).collect();
    [&whole[..2], &profiles, &exif, &whole[2..]].concat()
}

/// A white picture in fewer bytes than one of its rows has.
fn flat_png() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(Cursor::new(&mut bytes), 4096, 16);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&[255; 4096 * 16 * 3]).unwrap();
    assert!(bytes.len() < 4096 * 3);
    bytes
}

/// One test alone in this file: the allocator counts for the whole process. It counts all that is ever allocated, which is
/// more than what is held at one time.
#[test]
fn a_file_takes_no_more_than_its_length_and_its_pixels_say() {
    let packed_large = packed(PACKED);
    let profile = png_chunk(b"iCCP", &[b"p\0\0", &packed_large[..]].concat());
    let text = png_chunk(b"zTXt", &[b"parameters\0\0", &packed_large[..]].concat());
    let international = png_chunk(b"iTXt", &[b"parameters\0\x01\0\0\0", &packed_large[..]].concat());
    // Each is within what a text may be.
    let small = png_chunk(b"zTXt", &[b"parameters\0\0", &packed(1 << 20)[..]].concat());
    let exif_of_nothing = [
        &b"MM\0\x2a\0\0\0\x08\0\x01\x01\x0e\0\x02"[..],
        &(8u32 << 20).to_be_bytes(),
        &[0, 0, 0, 26, 0, 0, 0, 0],
    ]
    .concat();
    let exif_of_nothing = [&exif_of_nothing[..], &vec![0; 8 << 20]].concat();
    let cases = [
        ("PNG, flat", flat_png()),
        ("PNG, iCCP", png_with(&profile)),
        ("PNG, two iCCP", png_with(&[&profile[..], &profile].concat())),
        ("PNG, zTXt", png_with(&text)),
        ("PNG, iTXt", png_with(&international)),
        ("PNG, many zTXt", png_with(&small.repeat(200))),
        ("PNG, eXIf of empty lines", png_with(&png_chunk(b"eXIf", &exif_of_nothing))),
        ("WebP, EXIF that is not there", webp(8, &[frame(8), webp_chunk(b"EXIF", 1 << 30, b"")].concat())),
        ("WebP, a frame larger than its canvas", webp(0, &frame(16383))),
        ("JPEG, ICC and EXIF", jpeg_with_profiles()),
    ];
    for (name, file) in cases {
        let region = Region::new(ALLOCATOR);
        let (picture, texts) = (read_picture(&file), read_texts(&file));
        let mask = transparent_mask(&file);
        let allocated = region.change().bytes_allocated;
        let (picture, mask) = (picture.map(drop), mask.map(drop));
        // Three readings, each with a few copies of the file, and a text that may be long.
        let bound = 24 * file.len() + (12 << 20);
        assert!(allocated < bound, "{name}: {allocated} bytes for a file of {}", file.len());
        if name.starts_with("WebP") {
            assert!(picture.is_err() && mask.is_err(), "{name}");
        } else {
            assert_eq!((picture, mask, texts.map(drop)), (Ok(()), Ok(()), Ok(())), "{name}");
        }
    }
}
