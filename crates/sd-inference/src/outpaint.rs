//! Outpainting: a picture on a larger canvas, and the mask of what is to be drawn there.

use image::{GrayImage, Luma, RgbImage};

use crate::{Error, Result};

/// The longest side of a canvas, in pixels.
const MAX_SIDE: u32 = 16384;

/// How far a picture is continued beyond its edges, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extend {
    /// To the left.
    pub left: u32,
    /// Above.
    pub top: u32,
    /// To the right.
    pub right: u32,
    /// Below.
    pub bottom: u32,
    /// How far into the picture it is repainted along the sides that are extended. Latents are places of 8x8 pixels: with
    /// 8 and more none that is kept holds anything of the ground on which the picture lies.
    pub overlap: u32,
}

impl Extend {
    /// Width and height of the canvas for a picture of this size.
    pub fn size(&self, (width, height): (u32, u32)) -> (u32, u32) {
        let sum = |parts: [u32; 3]| parts.into_iter().fold(0, u32::saturating_add);
        (sum([self.left, width, self.right]), sum([self.top, height, self.bottom]))
    }

    /// The same with a canvas whose sides are multiples of `multiple`: what is missing is added on the right and below, or
    /// on the other side where only that one is extended.
    #[must_use]
    pub fn to_multiple(self, picture: (u32, u32), multiple: u32) -> Self {
        let missing = |side: u32| side.checked_next_multiple_of(multiple).unwrap_or(side) - side;
        let (width, height) = self.size(picture);
        let mut grown = self;
        *(if self.left > 0 && self.right == 0 { &mut grown.left } else { &mut grown.right }) +=
            missing(width);
        *(if self.top > 0 && self.bottom == 0 { &mut grown.top } else { &mut grown.bottom }) +=
            missing(height);
        grown
    }

    /// The picture on the canvas, which continues its outermost pixels, and the mask: what is new, what lies within the
    /// overlap, and what `mask` (as large as the picture) marks.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a picture without pixels, a mask of another size, or a canvas of more than 16384
    /// pixels a side.
    pub fn canvas(&self, picture: &RgbImage, mask: Option<&GrayImage>) -> Result<(RgbImage, GrayImage)> {
        let invalid = |field, (width, height): (u32, u32), limit: String| {
            Err(Error::InvalidRequest { field, value: format!("{width}x{height} pixels"), limit })
        };
        let (width, height) = picture.dimensions();
        let size @ (canvas_width, canvas_height) = self.size((width, height));
        if width.min(height) == 0 {
            return invalid("image", (width, height), "at least one pixel".into());
        }
        if canvas_width.max(canvas_height) > MAX_SIDE {
            return invalid("extend", size, format!("a canvas of at most {MAX_SIDE} pixels a side"));
        }
        if let Some(mask) = mask.filter(|mask| mask.dimensions() != (width, height)) {
            return invalid("mask", mask.dimensions(), format!("as large as the picture, {width}x{height}"));
        }
        let inside = |at: u32, before: u32, side: u32| at.saturating_sub(before).min(side - 1);
        let canvas = RgbImage::from_fn(canvas_width, canvas_height, |x, y| {
            *picture.get_pixel(inside(x, self.left, width), inside(y, self.top, height))
        });
        let kept_x = self.kept(self.left, self.right, width);
        let kept_y = self.kept(self.top, self.bottom, height);
        let marks = GrayImage::from_fn(canvas_width, canvas_height, |x, y| {
            match kept_x.contains(&x) && kept_y.contains(&y) {
                true => mask.map_or(Luma([0]), |mask| *mask.get_pixel(x - self.left, y - self.top)),
                false => Luma([255]),
            }
        });
        Ok((canvas, marks))
    }

    /// Which columns (or rows) of the canvas are not redrawn.
    fn kept(&self, before: u32, after: u32, side: u32) -> std::ops::Range<u32> {
        let overlap = |extended: u32| if extended > 0 { self.overlap.min(side) } else { 0 };
        before + overlap(before)..(before + side).saturating_sub(overlap(after))
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn picture() -> RgbImage {
        RgbImage::from_fn(20, 12, |x, y| Rgb([x as u8 * 10, y as u8 * 20, 7]))
    }

    #[test]
    fn the_picture_stands_in_its_place_and_its_edges_go_on() {
        let extend = Extend { left: 4, top: 0, right: 8, bottom: 4, overlap: 0 };
        let (canvas, mask) = extend.canvas(&picture(), None).unwrap();
        assert_eq!((canvas.dimensions(), mask.dimensions()), ((32, 16), (32, 16)));
        for (x, y, pixel) in canvas.enumerate_pixels() {
            let (px, py) = ((x.max(4) - 4).min(19), y.min(11));
            assert_eq!(pixel, picture().get_pixel(px, py), "{x}, {y}");
            let new = !(4..24).contains(&x) || y >= 12;
            assert_eq!(mask.get_pixel(x, y).0[0], if new { 255 } else { 0 }, "{x}, {y}");
        }
    }

    #[test]
    fn the_overlap_lies_along_extended_sides_only() {
        let extend = Extend { left: 4, overlap: 3, ..Extend::default() };
        let (_, mask) = extend.canvas(&picture(), None).unwrap();
        for (x, _, mark) in mask.enumerate_pixels() {
            assert_eq!(mark.0[0] == 255, x < 7);
        }
        let all = Extend { left: 4, right: 4, overlap: 200, ..Extend::default() };
        let all = all.canvas(&picture(), None).unwrap().1;
        assert!(all.pixels().all(|mark| mark.0[0] == 255), "nothing is left to keep");
    }

    #[test]
    fn a_mask_of_its_own_moves_with_the_picture() {
        let own = GrayImage::from_fn(20, 12, |x, _| Luma([if x == 5 { 200 } else { 0 }]));
        let (_, mask) =
            Extend { top: 2, left: 3, ..Extend::default() }.canvas(&picture(), Some(&own)).unwrap();
        assert_eq!(
            (mask.get_pixel(8, 5).0[0], mask.get_pixel(9, 5).0[0], mask.get_pixel(8, 1).0[0]),
            (200, 0, 255)
        );
    }

    #[test]
    fn what_cannot_be_extended_is_refused_with_its_limit() {
        let message = |extend: Extend, picture: &RgbImage, mask: Option<&GrayImage>| {
            extend.canvas(picture, mask).unwrap_err().to_string()
        };
        let far = Extend { left: u32::MAX, right: 9, ..Extend::default() };
        assert!(message(far, &picture(), None).contains("16384"));
        assert_eq!(far.to_multiple((20, 12), 8).left, u32::MAX);
        assert!(message(Extend::default(), &RgbImage::new(0, 3), None).contains("0x3"));
        assert!(message(Extend::default(), &picture(), Some(&GrayImage::new(3, 3))).contains("20x12"));
    }

    #[test]
    fn a_canvas_grows_to_what_models_can_do() {
        let grown = |left, right| {
            let Extend { left, right, bottom, .. } =
                Extend { left, right, ..Extend::default() }.to_multiple((20, 12), 8);
            (left, right, bottom)
        };
        assert_eq!(grown(0, 3), (0, 4, 4));
        assert_eq!(grown(3, 0), (4, 0, 4));
        assert_eq!(grown(3, 3), (3, 9, 4));
        assert_eq!(grown(4, 0), (4, 0, 4));
    }
}
