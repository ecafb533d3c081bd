//! Scaling pictures whose edges meet: beyond such an edge the filter sees the other side.

use image::RgbImage;
use sd_models::nn::Seamless;

/// As far as any filter sees, in pixels of the smaller picture.
const REACH: u32 = 8;

/// `picture` brought to this size by `scale`, which is given a picture and a size.
pub(crate) fn scaled(
    picture: &RgbImage,
    (width, height): (u32, u32),
    seamless: Seamless,
    scale: impl FnOnce(&RgbImage, u32, u32) -> RgbImage,
) -> RgbImage {
    if !seamless.any() || picture.dimensions() == (width, height) {
        return scale(picture, width, height);
    }
    let (from_width, from_height) = picture.dimensions();
    let (left, left_after) = if seamless.x { margin(from_width, width) } else { (0, 0) };
    let (top, top_after) = if seamless.y { margin(from_height, height) } else { (0, 0) };
    let wider = RgbImage::from_fn(from_width + 2 * left, from_height + 2 * top, |x, y| {
        let place = |at: u32, margin: u32, length: u32| (at + length * margin - margin) % length;
        *picture.get_pixel(place(x, left, from_width), place(y, top, from_height))
    });
    let large = scale(&wider, width + 2 * left_after, height + 2 * top_after);
    image::imageops::crop_imm(&large, left_after, top_after, width, height).to_image()
}

/// How many pixels are added beyond each edge of a side, and how many that is after it was scaled: both whole.
fn margin(from: u32, to: u32) -> (u32, u32) {
    let common = common_divisor(from, to);
    let (from, to) = (from / common, to / common);
    let times = REACH.div_ceil(from);
    (times * from, times * to)
}

fn common_divisor(a: u32, b: u32) -> u32 {
    match b {
        0 => a.max(1),
        b => common_divisor(b, a % b),
    }
}

#[cfg(test)]
mod tests {
    use image::imageops::{FilterType, resize};

    use super::*;

    /// The law: a picture that is shifted around its edges gives the result shifted as far.
    #[test]
    fn a_shifted_picture_gives_the_result_shifted() {
        let pixel = |x: u32, y: u32| image::Rgb([(x * 37 + y * 11) as u8, (x * y) as u8, (y * 53) as u8]);
        let picture = RgbImage::from_fn(24, 20, pixel);
        let moved = |picture: &RgbImage, right: u32, down: u32| {
            let (width, height) = picture.dimensions();
            RgbImage::from_fn(width, height, |x, y| {
                *picture.get_pixel((x + width - right) % width, (y + height - down) % height)
            })
        };
        let by = |picture: &RgbImage, seamless| {
            scaled(picture, (36, 25), seamless, |picture, width, height| {
                resize(picture, width, height, FilterType::Lanczos3)
            })
        };
        for (seamless, right, down) in [
            (Seamless { x: true, y: true }, 10, 8),
            (Seamless { x: true, y: false }, 10, 0),
            (Seamless { x: false, y: true }, 0, 8),
        ] {
            let expected = moved(&by(&picture, seamless), right / 2 * 3, down / 4 * 5);
            let found = by(&moved(&picture, right, down), seamless);
            let pairs = found.as_raw().iter().zip(expected.as_raw());
            let largest = pairs.map(|(a, b)| a.abs_diff(*b)).max();
            // The weights of the filter are rounded otherwise elsewhere in the picture.
            assert!(largest <= Some(1), "{seamless:?}: {largest:?} of 255");
        }
        let plain = by(&picture, Seamless::default());
        assert_ne!(plain, by(&picture, Seamless { x: true, y: true }));
        assert_eq!(plain, resize(&picture, 36, 25, FilterType::Lanczos3));
    }
}
