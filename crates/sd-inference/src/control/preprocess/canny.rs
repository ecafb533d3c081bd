//! Edges after Canny (1986), as OpenCV's `Canny` finds them: integers throughout, so that the same pixels come out.

use image::{GrayImage, Luma, RgbImage};

use super::{sobel, to_rgb};

/// From which strength on a pixel is part of an edge. The strength is the sum of the absolute derivatives by Sobel's
/// operators, 0 to 2040.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CannyThresholds {
    /// Pixels above this belong to an edge if it leads to one above `high`.
    pub low: u32,
    /// Pixels above this always do.
    pub high: u32,
}

impl Default for CannyThresholds {
    /// 100 and 200, which the published nets are mostly used with.
    fn default() -> Self {
        Self { low: 100, high: 200 }
    }
}

/// tan(22.5 degrees) in units of 2^-15.
const TAN_22: i64 = 13573;

/// White edges of one pixel's width on black. The picture is not smoothed before.
///
/// The same as `cv2.Canny(picture, low, high)` of a picture in RGB: where the colours differ, the one with the strongest
/// derivatives counts.
pub fn canny(image: &RgbImage, thresholds: CannyThresholds) -> RgbImage {
    // No strength exceeds 2040.
    let [low, high] = [thresholds.low.min(thresholds.high), thresholds.low.max(thresholds.high)]
        .map(|threshold| threshold.min(4096) as i32);
    let (width, height) = image.dimensions();
    let gradients = Gradients::of(image);
    let mut edges = GrayImage::new(width, height);
    let mut found = Vec::new();
    for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
        if gradients.strength(x.into(), y.into()) > high && gradients.is_ridge(x, y) {
            edges.put_pixel(x, y, Luma([255]));
            found.push((x, y));
        }
    }
    // Follows the edges from their strong pixels to the weaker ones.
    while let Some((x, y)) = found.pop() {
        for (x, y) in neighbours(x, y, width, height) {
            let new = edges.get_pixel(x, y).0[0] == 0;
            if new && gradients.strength(x.into(), y.into()) > low && gradients.is_ridge(x, y) {
                edges.put_pixel(x, y, Luma([255]));
                found.push((x, y));
            }
        }
    }
    to_rgb(&edges)
}

fn neighbours(x: u32, y: u32, width: u32, height: u32) -> impl Iterator<Item = (u32, u32)> {
    let (columns, rows) =
        (x.saturating_sub(1)..=(x + 1).min(width - 1), y.saturating_sub(1)..=(y + 1).min(height - 1));
    rows.flat_map(move |y| columns.clone().map(move |x| (x, y)))
}

/// The derivatives of the colour that changes most, at each pixel.
struct Gradients {
    width: i64,
    height: i64,
    /// To the right and down.
    values: Vec<(i32, i32)>,
}

impl Gradients {
    fn of(image: &RgbImage) -> Self {
        let (width, height) = image.dimensions();
        let gradient = |(x, y): (u32, u32)| {
            let of_colour =
                |c: usize| sobel(|x, y| i32::from(image.get_pixel(x, y).0[c]), width, height, x, y);
            // The first of several that are equally strong.
            [1, 2].into_iter().map(of_colour).fold(of_colour(0), |strongest, other| {
                if strength(other) > strength(strongest) { other } else { strongest }
            })
        };
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        Self { width: width.into(), height: height.into(), values: pixels.map(gradient).collect() }
    }

    /// 0 beyond the border.
    fn strength(&self, x: i64, y: i64) -> i32 {
        match (0..self.width).contains(&x) && (0..self.height).contains(&y) {
            true => strength(self.values[(y * self.width + x) as usize]),
            false => 0,
        }
    }

    /// Whether the strength is largest here, looked at across the edge: horizontally, vertically or diagonally, whatever
    /// is nearest. Of two that are equal the left or the upper one counts, on diagonals neither.
    fn is_ridge(&self, x: u32, y: u32) -> bool {
        let (x, y) = (i64::from(x), i64::from(y));
        let (right, down) = self.values[(y * self.width + x) as usize];
        let own = strength((right, down));
        let (across, along) = (i64::from(right.abs()), i64::from(down.abs()) << 15);
        let flat = across * TAN_22;
        if along < flat {
            return own > self.strength(x - 1, y) && own >= self.strength(x + 1, y);
        }
        // tan(67.5 degrees) is tan(22.5 degrees) + 2.
        if along > flat + (across << 16) {
            return own > self.strength(x, y - 1) && own >= self.strength(x, y + 1);
        }
        let side = if (right < 0) == (down < 0) { 1 } else { -1 };
        own > self.strength(x - side, y - 1) && own > self.strength(x + side, y + 1)
    }
}

fn strength((right, down): (i32, i32)) -> i32 {
    right.abs() + down.abs()
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn step(low: u8, high: u8) -> RgbImage {
        RgbImage::from_fn(12, 9, |x, _| Rgb([if x < 6 { low } else { high }; 3]))
    }

    fn white(image: &RgbImage) -> Vec<(u32, u32)> {
        image.enumerate_pixels().filter(|(_, _, pixel)| pixel.0[0] > 0).map(|(x, y, _)| (x, y)).collect()
    }

    #[test]
    fn a_step_is_one_line() {
        let edges = canny(&step(40, 220), CannyThresholds::default());
        assert_eq!(white(&edges), (0..9).map(|y| (5, y)).collect::<Vec<_>>());
    }

    #[test]
    fn weak_steps_are_none_and_thresholds_may_be_swapped() {
        // Four times the step is its strength.
        let thresholds = CannyThresholds { low: 100, high: 200 };
        assert!(white(&canny(&step(100, 150), thresholds)).is_empty());
        assert_eq!(white(&canny(&step(100, 151), thresholds)).len(), 9);
        let swapped = CannyThresholds { low: 200, high: 100 };
        assert_eq!(canny(&step(100, 151), swapped), canny(&step(100, 151), thresholds));
    }

    #[test]
    fn pictures_of_one_pixel_and_of_none_have_no_edges() {
        for size in [(1, 1), (0, 0), (1, 7)] {
            let image = RgbImage::from_pixel(size.0, size.1, Rgb([200; 3]));
            assert!(white(&canny(&image, CannyThresholds { low: 0, high: 0 })).is_empty());
        }
    }
}
