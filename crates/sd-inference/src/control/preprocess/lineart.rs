//! Lines from a picture's edges.

use image::{GrayImage, Luma, RgbImage};

use super::{sobel, to_rgb};

/// Binomial weights of the smoothing, of 16.
const SMOOTHING: [f32; 5] = [1.0, 4.0, 6.0, 4.0, 1.0];
/// What each colour adds to a pixel's lightness (ITU-R BT.601).
const LIGHTNESS: [f32; 3] = [0.299, 0.587, 0.114];

/// White lines on black where the picture's lightness changes: soft, the brighter the stronger the change, the strongest
/// white.
///
/// The length of the derivative by Sobel's operators after a binomial smoothing over 5 x 5 pixels. A picture of one
/// colour becomes black.
pub fn lineart(image: &RgbImage) -> RgbImage {
    let (width, height) = image.dimensions();
    let smooth = Plane::lightness(image).smoothed();
    let mut strengths = Vec::with_capacity(width as usize * height as usize);
    for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
        let (right, down) = sobel(|x, y| smooth.at(x, y), width, height, x, y);
        strengths.push((right * right + down * down).sqrt());
    }
    let most = strengths.iter().copied().fold(0.0, f32::max);
    // Less than this is rounding, not a line.
    let scale = if most > 1e-2 { 255.0 / most } else { 0.0 };
    let grey = GrayImage::from_fn(width, height, |x, y| {
        let strength = strengths[y as usize * width as usize + x as usize];
        Luma([(strength * scale).round_ties_even() as u8])
    });
    to_rgb(&grey)
}

/// One value for each pixel.
struct Plane {
    width: u32,
    values: Vec<f32>,
}

impl Plane {
    fn lightness(image: &RgbImage) -> Self {
        let of_pixel = |pixel: &image::Rgb<u8>| {
            pixel.0.iter().zip(LIGHTNESS).map(|(value, weight)| f32::from(*value) * weight).sum()
        };
        Self { width: image.width(), values: image.pixels().map(of_pixel).collect() }
    }

    fn at(&self, x: u32, y: u32) -> f32 {
        self.values[y as usize * self.width as usize + x as usize]
    }

    /// Beyond the border the outermost pixels go on.
    fn smoothed(&self) -> Self {
        let height = (self.values.len() as u32).checked_div(self.width).unwrap_or(0);
        let near = |at: u32, offset: usize, len: u32| (at + offset as u32).saturating_sub(2).min(len - 1);
        let weighted = |value: &dyn Fn(usize) -> f32| {
            SMOOTHING.iter().enumerate().map(|(offset, weight)| weight * value(offset)).sum::<f32>() / 16.0
        };
        let pixels = || (0..height).flat_map(|y| (0..self.width).map(move |x| (x, y)));
        let across = pixels().map(|(x, y)| weighted(&|offset| self.at(near(x, offset, self.width), y)));
        let across = Self { width: self.width, values: across.collect() };
        let down = pixels().map(|(x, y)| weighted(&|offset| across.at(x, near(y, offset, height))));
        Self { width: self.width, values: down.collect() }
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn lines_are_where_the_picture_changes() {
        let image = RgbImage::from_fn(16, 8, |x, _| Rgb(if x < 8 { [10, 20, 30] } else { [200, 150, 220] }));
        let lines = lineart(&image);
        for (x, _, pixel) in lines.enumerate_pixels() {
            match x {
                7 | 8 => assert_eq!(pixel.0, [255; 3]),
                0..=3 | 12.. => assert_eq!(pixel.0, [0; 3]),
                _ => assert!(pixel.0[0] < 255),
            }
        }
    }

    #[test]
    fn one_colour_has_no_lines() {
        for size in [(9, 5), (1, 1), (0, 0)] {
            let lines = lineart(&RgbImage::from_pixel(size.0, size.1, Rgb([90, 180, 33])));
            assert!(lines.pixels().all(|pixel| pixel.0 == [0; 3]));
        }
    }
}
