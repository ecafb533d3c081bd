//! Control pictures made from others against those of OpenCV and numpy (`fixtures/preprocess`, made by
//! `tools/reference`).

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use image::{DynamicImage, GrayImage, RgbImage};
use sd_inference::preprocess::{CannyThresholds, Near, canny, depth, lineart};

fn picture(file: &str) -> DynamicImage {
    image::open(support::fixtures("preprocess").join(file)).unwrap()
}

fn grey(found: &RgbImage) -> GrayImage {
    assert!(found.pixels().all(|pixel| pixel.0[0] == pixel.0[1] && pixel.0[1] == pixel.0[2]));
    GrayImage::from_fn(found.width(), found.height(), |x, y| image::Luma([found.get_pixel(x, y).0[0]]))
}

#[test]
fn canny_finds_the_pixels_that_opencv_finds() {
    let text = std::fs::read_to_string(support::fixtures("preprocess").join("preprocess.json")).unwrap();
    let notes: serde_json::Value = serde_json::from_str(&text).unwrap();
    let input = picture("picture.png").to_rgb8();
    let cases = notes["canny"].as_array().unwrap();
    assert!(cases.len() >= 3);
    for case in cases {
        let threshold = |name: &str| case[name].as_u64().unwrap() as u32;
        let thresholds = CannyThresholds { low: threshold("low"), high: threshold("high") };
        let expected = picture(case["file"].as_str().unwrap()).to_luma8();
        let found = grey(&canny(&input, thresholds));
        assert_eq!(found.dimensions(), expected.dimensions());
        let same = found.as_raw().iter().zip(expected.as_raw()).filter(|(a, b)| a == b).count();
        let percent = 100.0 * same as f64 / expected.as_raw().len() as f64;
        println!("{thresholds:?}: {percent} percent of the pixels agree");
        assert_eq!(found, expected, "{thresholds:?}: {percent} percent of the pixels agree");
    }
}

#[test]
fn lines_are_those_of_opencv() {
    let expected = picture("lineart.png").to_luma8();
    let found = grey(&lineart(&picture("picture.png").to_rgb8()));
    let differences = found.as_raw().iter().zip(expected.as_raw()).map(|(a, b)| a.abs_diff(*b));
    assert!(differences.max().unwrap() <= 1, "other than by rounding");
}

#[test]
fn depths_are_brought_to_the_full_range_from_both_widths() {
    for bits in [8, 16] {
        let map = picture(&format!("depth_map_{bits}.png"));
        assert_eq!(matches!(map, DynamicImage::ImageLuma16(_)), bits == 16, "the map has {bits} bits");
        for (near, file) in [(Near::Bright, "depth"), (Near::Dark, "depth_inverted")] {
            let expected = picture(&format!("{file}_{bits}.png")).to_luma8();
            assert_eq!(grey(&depth(&map, near)), expected, "{file}_{bits}");
        }
    }
}
