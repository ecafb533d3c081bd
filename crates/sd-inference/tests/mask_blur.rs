//! Softened masks against those of diffusers (`fixtures/mask_blur`, made by `tools/reference`).

#![allow(clippy::unwrap_used)]

mod support;

use image::{GrayImage, Luma};
use sd_inference::InitMask;
use serde::Deserialize;

/// `mask_blur.json`.
#[derive(Deserialize)]
struct Reference {
    masks: Vec<String>,
    radii: Vec<u32>,
    crc32: Vec<u32>,
}

fn reference() -> Reference {
    let text = std::fs::read_to_string(support::fixtures("mask_blur").join("mask_blur.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The mask, and what the reference makes of it with each of the radii.
fn pictures(mask: &str, radii: usize) -> (GrayImage, Vec<GrayImage>) {
    let file = support::fixtures("mask_blur").join(format!("{mask}.png"));
    let all = image::open(file).unwrap().into_luma8();
    let parts = radii as u32 + 1;
    let (width, height) = (all.width(), all.height() / parts);
    assert_eq!(all.height(), height * parts);
    let part = |i: u32| image::imageops::crop_imm(&all, 0, i * height, width, height).to_image();
    (part(0), (1..parts).map(part).collect())
}

fn softened(mask: GrayImage, blur: u32) -> GrayImage {
    InitMask { mask, blur, padding: None }.softened()
}

/// CRC-32 (IEEE 802.3).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0xedb8_8320 * (crc & 1)))
    })
}

#[test]
fn masks_are_softened_to_the_bytes_of_the_reference() {
    let Reference { masks, radii, .. } = reference();
    assert!(masks.len() >= 8 && radii.contains(&0) && radii.contains(&256));
    for name in masks {
        let (mask, expected) = pictures(&name, radii.len());
        for (radius, expected) in radii.iter().zip(expected) {
            assert_eq!(softened(mask.clone(), *radius), expected, "{name}, radius {radius}");
        }
    }
}

#[test]
fn every_radius_gives_the_bytes_of_the_reference() {
    let Reference { radii, crc32: sums, .. } = reference();
    let (mask, _) = pictures("every_radius", radii.len());
    assert_eq!(sums.len(), 257);
    for (radius, sum) in sums.into_iter().enumerate() {
        assert_eq!(crc32(softened(mask.clone(), radius as u32).as_raw()), sum, "radius {radius}");
    }
}

/// Beyond what the worker lets a request ask for, as the library does not limit it.
#[test]
fn no_mask_is_too_small_and_no_radius_too_large() {
    for (width, height) in [(0, 0), (0, 5), (5, 0), (1, 1), (3, 2), (300, 1)] {
        let mask = GrayImage::from_pixel(width, height, Luma([255]));
        for radius in [1, 300, 1 << 22, 1 << 23, u32::MAX] {
            assert_eq!(softened(mask.clone(), radius), mask, "{width}x{height}, radius {radius}");
        }
    }
}
