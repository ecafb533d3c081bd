//! From pictures to control pictures, at their own size.

mod canny;
mod depth;
mod lineart;

pub use canny::{CannyThresholds, canny};
pub use depth::{Near, depth};
pub use lineart::lineart;

use image::{GrayImage, Luma, Rgb, RgbImage};

/// The same grey in all three colours.
fn to_rgb(grey: &GrayImage) -> RgbImage {
    let (width, height) = grey.dimensions();
    RgbImage::from_fn(width, height, |x, y| {
        let Luma([value]) = *grey.get_pixel(x, y);
        Rgb([value; 3])
    })
}

/// Derivatives of one channel to the right and down by Sobel's operators of 3 x 3; beyond the border the outermost
/// pixels go on.
fn sobel<T>(at: impl Fn(u32, u32) -> T, width: u32, height: u32, x: u32, y: u32) -> (T, T)
where
    T: Copy + std::ops::Add<Output = T> + std::ops::Sub<Output = T>,
{
    let (left, right) = (x.saturating_sub(1), (x + 1).min(width - 1));
    let (up, down) = (y.saturating_sub(1), (y + 1).min(height - 1));
    let column = |x: u32| at(x, up) + at(x, y) + at(x, y) + at(x, down);
    let row = |y: u32| at(left, y) + at(x, y) + at(x, y) + at(right, y);
    (column(right) - column(left), row(down) - row(up))
}
