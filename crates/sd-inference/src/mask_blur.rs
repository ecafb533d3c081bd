//! Softens a mask as the reference does: diffusers' `VaeImageProcessor.blur`, which is Pillow's `GaussianBlur`.
//!
//! The Gaussian is approximated by three passes of a box with a fractional radius (Gwosdek et al. 2011, "Theoretical
//! foundations of Gaussian convolution by extended box filtering"), whose time does not grow with the radius. Pillow's
//! `BoxBlur.c` is the source of what the paper leaves open, and equal bytes depend on all of it: three passes along
//! the rows before three along the columns, 8 bits between them, edges that repeat their pixel, weights in fixed point.

use image::{GrayImage, Luma};

/// Passes along each axis.
const PASSES: usize = 3;
/// Weights are shares of this.
const ONE: u64 = 1 << 24;

/// `mask` blurred by a Gaussian with a standard deviation of `radius` pixels; with 0 as it was.
pub(crate) fn gaussian_blur(mask: &GrayImage, radius: u32) -> GrayImage {
    if radius == 0 || mask.is_empty() {
        return mask.clone();
    }
    let window = Window::of_gaussian(radius as f32);
    let mut rows = mask.clone();
    window.blur_rows(&mut rows);
    let mut columns = transposed(&rows);
    window.blur_rows(&mut columns);
    transposed(&columns)
}

fn transposed(image: &GrayImage) -> GrayImage {
    GrayImage::from_fn(image.height(), image.width(), |x, y| Luma(image.get_pixel(y, x).0))
}

/// A box with soft ends: `2 * radius + 1` pixels of one weight, and one more at each end with what is left.
struct Window {
    radius: usize,
    weight: u64,
    end_weight: u64,
}

impl Window {
    /// The box whose passes together spread as far as the Gaussian: equations 7, 11 and 14 of the paper. All is f32, but
    /// for the square root.
    fn of_gaussian(deviation: f32) -> Self {
        let variance = deviation * deviation / PASSES as f32;
        let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
        let whole = ((f64::from(length) - 1.0) / 2.0).floor() as f32;
        let part = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance);
        let part = part / (6.0 * (variance - (whole + 1.0) * (whole + 1.0)));
        Self::new(whole + part)
    }

    fn new(radius: f32) -> Self {
        let weight = (ONE as f32 / (radius * 2.0 + 1.0)) as u64;
        let radius = radius as usize;
        let end_weight = ONE.saturating_sub((radius as u64 * 2 + 1) * weight) / 2;
        Self { radius, weight, end_weight }
    }

    fn blur_rows(&self, image: &mut GrayImage) {
        let width = image.width() as usize;
        let mut blurred = vec![0; width];
        for row in image.chunks_exact_mut(width) {
            for _ in 0..PASSES {
                self.blur(row, &mut blurred);
                row.copy_from_slice(&blurred);
            }
        }
    }

    /// One pass over a row that is not empty.
    fn blur(&self, row: &[u8], blurred: &mut [u8]) {
        let last = row.len() - 1;
        let at = |x: usize| u64::from(row[x.min(last)]);
        // What the box holds that is centred one pixel before the row: the first pixel repeated, and the row's beginning.
        let within = self.radius.min(last);
        let beyond = (self.radius - within) as u64;
        let mut sum = at(0) * (self.radius as u64 + 1) + (0..within).map(at).sum::<u64>() + at(last) * beyond;
        for (x, blurred) in blurred.iter_mut().enumerate() {
            let left = at(x.saturating_sub(self.radius + 1));
            sum = sum + at(x + self.radius) - left;
            let ends = left + at(x + self.radius + 1);
            *blurred = ((sum * self.weight + ends * self.end_weight + ONE / 2) / ONE) as u8;
        }
    }
}
