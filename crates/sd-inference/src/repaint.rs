//! Inpainting: redraws what a mask marks and keeps the rest.

use candle_core::{Device, Tensor};
use image::imageops::{self, FilterType};
use image::{GrayImage, Rgb, RgbImage};

use crate::mask_blur::gaussian_blur;
use crate::schedulers::Scheduler;
use crate::{Error, Result};

/// From this value on a pixel of the mask is redrawn, as in the reference.
const MARKED: u8 = 128;

/// What of a picture is redrawn.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct InitMask {
    /// As large as the picture: 255 is redrawn, 0 is kept to the bit.
    pub mask: GrayImage,
    /// The radius in pixels (the standard deviation) by which the mask's edge is softened before it is used.
    pub blur: u32,
    /// Works on the marked part with this margin, at the request's full size, and puts it back where it was; the
    /// result is as large as the picture. `None`: on the whole picture.
    pub padding: Option<u32>,
}

/// A part of a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Region {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

/// A picture, what of it is redrawn, and how the result is put together.
pub(crate) struct Inputs {
    /// What the model works on, of the request's size.
    pub(crate) picture: RgbImage,
    /// What of it is redrawn, likewise.
    pub(crate) mask: GrayImage,
    pub(crate) paste: Paste,
}

impl InitMask {
    /// The mask with its edge softened by [`blur`](Self::blur), to the bytes of diffusers' `mask_processor.blur`.
    pub fn softened(&self) -> GrayImage {
        gaussian_blur(&self.mask, self.blur)
    }

    /// Cuts and scales picture and mask to the size that the model works on. Sides that are the picture's own, up to the
    /// next multiple of `multiple`, scale nothing: what is missing continues the picture's edge and is cut off again.
    pub(crate) fn inputs(
        &self,
        picture: &RgbImage,
        (width, height): (u32, u32),
        multiple: u32,
    ) -> Result<Inputs> {
        if self.mask.dimensions() != picture.dimensions() {
            let size = |(width, height)| format!("{width}x{height}");
            return Err(Error::InvalidRequest {
                field: "mask",
                value: format!("{} pixels", size(self.mask.dimensions())),
                limit: format!("as large as the picture, {}", size(picture.dimensions())),
            });
        }
        let mask = self.softened();
        let up = |side: u32| side.checked_next_multiple_of(multiple).unwrap_or(side);
        let fits = (up(picture.width()), up(picture.height())) == (width, height);
        let Some(padding) = self.padding else {
            if fits && picture.width().min(picture.height()) > 0 {
                let (wide, wide_mask) = (continued(picture, width, height), continued(&mask, width, height));
                let region = Region { x: 0, y: 0, width, height };
                let paste = Paste { original: picture.clone(), mask, region };
                return Ok(Inputs { picture: wide, mask: wide_mask, paste });
            }
            let (picture, mask) = (scaled(picture, width, height), scaled(&mask, width, height));
            let region = Region { x: 0, y: 0, width, height };
            let paste = Paste { original: picture.clone(), mask: mask.clone(), region };
            return Ok(Inputs { picture, mask, paste });
        };
        let region = around(&mask, padding, (width, height));
        let Region { x, y, width: w, height: h } = region;
        let part = imageops::crop_imm(picture, x, y, w, h).to_image();
        let part_mask = imageops::crop_imm(&mask, x, y, w, h).to_image();
        Ok(Inputs {
            picture: scaled(&part, width, height),
            mask: scaled(&part_mask, width, height),
            paste: Paste { original: picture.clone(), mask, region },
        })
    }
}

/// The image at this size.
pub(crate) fn scaled<P>(
    image: &image::ImageBuffer<P, Vec<u8>>,
    width: u32,
    height: u32,
) -> image::ImageBuffer<P, Vec<u8>>
where
    P: image::Pixel<Subpixel = u8> + 'static,
{
    match image.dimensions() == (width, height) {
        true => image.clone(),
        false => imageops::resize(image, width, height, FilterType::Lanczos3),
    }
}

/// The image on a canvas of this size, which repeats its last column and row on the right and below.
fn continued<P>(
    image: &image::ImageBuffer<P, Vec<u8>>,
    width: u32,
    height: u32,
) -> image::ImageBuffer<P, Vec<u8>>
where
    P: image::Pixel<Subpixel = u8> + 'static,
{
    let (right, bottom) = (image.width() - 1, image.height() - 1);
    image::ImageBuffer::from_fn(width, height, |x, y| *image.get_pixel(x.min(right), y.min(bottom)))
}

/// The marked part with a margin, widened to the proportions of the size that the model works on as far as the
/// picture goes (diffusers' `get_crop_region`). Where nothing is marked, the whole picture.
fn around(mask: &GrayImage, padding: u32, (width, height): (u32, u32)) -> Region {
    let marked = || mask.enumerate_pixels().filter(|(_, _, pixel)| pixel.0[0] > 0);
    let whole = Region { x: 0, y: 0, width: mask.width(), height: mask.height() };
    let span = |at: fn(u32, u32) -> u32, limit: u32| {
        let places = || marked().map(|(x, y, _)| at(x, y));
        let (first, last) = (places().min()?, places().max()?);
        Some((first.saturating_sub(padding), last.saturating_add(padding).saturating_add(1).min(limit)))
    };
    let (Some((left, right)), Some((top, bottom))) =
        (span(|x, _| x, whole.width), span(|_, y| y, whole.height))
    else {
        return whole;
    };
    let (own_width, own_height) = (right - left, bottom - top);
    let wanted = f64::from(width) / f64::from(height);
    let ((left, right), (top, bottom)) = if f64::from(own_width) / f64::from(own_height) > wanted {
        let height = (f64::from(own_width) / wanted) as u32;
        ((left, right), widened(top, bottom, height, whole.height))
    } else {
        let width = (f64::from(own_height) * wanted) as u32;
        (widened(left, right, width, whole.width), (top, bottom))
    };
    Region { x: left, y: top, width: right - left, height: bottom - top }
}

/// `start..end` made `wanted` long on both sides alike, moved and cut so that it stays within `0..limit`.
fn widened(start: u32, end: u32, wanted: u32, limit: u32) -> (u32, u32) {
    let more = wanted.saturating_sub(end - start);
    let length = (end - start + more).min(limit);
    let start = start.saturating_sub(more / 2).min(limit - length);
    (start, start + length)
}

/// Puts what was drawn back into the picture.
pub(crate) struct Paste {
    original: RgbImage,
    /// As large as `original`.
    mask: GrayImage,
    /// Where the drawn picture belongs.
    region: Region,
}

impl Paste {
    /// The original with the marked part from `drawn`. What the mask does not mark keeps its bytes.
    pub(crate) fn onto(&self, drawn: &RgbImage) -> RgbImage {
        let Region { x, y, width, height } = self.region;
        let drawn = scaled(drawn, width, height);
        let mut result = self.original.clone();
        let (right, bottom) = result.dimensions();
        // The region reaches beyond the picture where that was continued to a size that the model can do.
        let inside = drawn.enumerate_pixels().filter(|(i, j, _)| x + i < right && y + j < bottom);
        for (i, j, new) in inside {
            let weight = u32::from(self.mask.get_pixel(x + i, y + j).0[0]);
            let old = result.get_pixel_mut(x + i, y + j);
            let mixed = |old: u8, new: u8| {
                ((u32::from(old) * (255 - weight) + u32::from(new) * weight + 127) / 255) as u8
            };
            *old = Rgb([0, 1, 2].map(|c| mixed(old.0[c], new.0[c])));
        }
        result
    }

    /// The part of `other`, a picture of the same scene, that is worked on.
    pub(crate) fn cut(&self, other: &RgbImage) -> RgbImage {
        let Region { x, y, width, height } = self.region;
        let other = scaled(other, self.original.width(), self.original.height());
        if x + width > other.width() || y + height > other.height() {
            return continued(&other, width, height);
        }
        imageops::crop_imm(&other, x, y, width, height).to_image()
    }

    /// Width and height of the result.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.original.width() as usize, self.original.height() as usize)
    }
}

/// Keeps the latents outside the mask at the picture's own, at each noise level: how a model that was not trained for
/// it repaints (RePaint's first form, and the reference's 4-channel way).
pub(crate) struct Keep {
    /// Scaled latents of the picture, `(images, channels, height, width)`.
    pub(crate) original: Tensor,
    /// The noise that the run began with.
    pub(crate) noise: Tensor,
    /// 1 where it is redrawn, `(1, 1, height, width)`.
    pub(crate) mask: Tensor,
}

impl Keep {
    /// The latents before step `next`, with what is kept as it would be at that noise level.
    pub(crate) fn restore(&self, latents: &Tensor, scheduler: &dyn Scheduler, next: usize) -> Result<Tensor> {
        let own = match next < scheduler.steps() {
            true => scheduler.add_noise(&self.original, &self.noise, next)?,
            false => self.original.clone(),
        };
        let kept = own.broadcast_mul(&self.mask.affine(-1.0, 1.0)?)?;
        Ok((kept + latents.broadcast_mul(&self.mask)?)?)
    }
}

/// The mask at the size of latents, `(1, 1, height, width)`: 1 where the pixel in the corner of each place is marked.
pub(crate) fn latent_mask(mask: &GrayImage, scale: u32, device: &Device) -> Result<Tensor> {
    let (width, height) = (mask.width() / scale, mask.height() / scale);
    let marked = |x: u32, y: u32| f32::from(u8::from(mask.get_pixel(x * scale, y * scale).0[0] >= MARKED));
    let values: Vec<f32> = (0..height).flat_map(|y| (0..width).map(move |x| marked(x, y))).collect();
    Ok(Tensor::from_vec(values, (1, 1, height as usize, width as usize), device)?)
}

/// The picture without what is marked, which is grey: what inpainting models see.
pub(crate) fn without_marked(picture: &Tensor, mask: &GrayImage) -> Result<Tensor> {
    let kept: Vec<f32> = mask.as_raw().iter().map(|value| f32::from(u8::from(*value < MARKED))).collect();
    let size = (1, 1, mask.height() as usize, mask.width() as usize);
    Ok(picture.broadcast_mul(&Tensor::from_vec(kept, size, picture.device())?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(width: u32, height: u32, marked: [u32; 4]) -> GrayImage {
        let [left, top, right, bottom] = marked;
        let inside = |x, y| (left..right).contains(&x) && (top..bottom).contains(&y);
        GrayImage::from_fn(width, height, |x, y| image::Luma([if inside(x, y) { 255 } else { 0 }]))
    }

    fn region(width: u32, height: u32, marked: [u32; 4], padding: u32, size: (u32, u32)) -> [u32; 4] {
        let Region { x, y, width, height } = around(&mask(width, height, marked), padding, size);
        [x, y, x + width, y + height]
    }

    /// Values that diffusers 0.42.1's `get_crop_region` gives.
    #[test]
    fn the_part_is_cut_as_the_reference_cuts_it() {
        for (width, height, marked, padding, size, expected) in [
            (128, 128, [40, 40, 72, 72], 0, (64, 64), [40, 40, 72, 72]),
            (128, 128, [40, 40, 72, 72], 8, (64, 64), [32, 32, 80, 80]),
            (128, 96, [40, 40, 104, 56], 0, (64, 64), [40, 16, 104, 80]),
            (128, 96, [100, 10, 120, 80], 4, (64, 64), [50, 6, 128, 84]),
            (128, 96, [0, 0, 20, 10], 4, (96, 64), [0, 0, 24, 16]),
            (60, 60, [0, 20, 60, 30], 0, (32, 64), [0, 0, 60, 60]),
        ] {
            assert_eq!(
                region(width, height, marked, padding, size),
                expected,
                "{marked:?} in {width}x{height}"
            );
        }
    }

    #[test]
    fn where_nothing_is_marked_all_is_taken() {
        assert_eq!(region(60, 40, [0; 4], 8, (64, 64)), [0, 0, 60, 40]);
    }

    #[test]
    fn what_is_not_marked_keeps_its_bytes() {
        let original = RgbImage::from_fn(24, 16, |x, y| Rgb([x as u8 * 9, y as u8 * 11, 77]));
        for padding in [None, Some(3)] {
            let init = InitMask { mask: mask(24, 16, [8, 4, 16, 12]), blur: 0, padding };
            let inputs = init.inputs(&original, (24, 16), 8).unwrap();
            let result = inputs.paste.onto(&RgbImage::from_pixel(24, 16, Rgb([255, 255, 255])));
            for (x, y, pixel) in result.enumerate_pixels() {
                match init.mask.get_pixel(x, y).0[0] {
                    0 => assert_eq!(pixel, original.get_pixel(x, y)),
                    _ => assert_eq!(pixel.0, [255; 3]),
                }
            }
        }
    }

    /// Sides that are no multiples: the picture is continued, nothing is scaled, and the result is as large as the picture.
    #[test]
    fn odd_sides_are_continued_and_cut_off_again() {
        let original = RgbImage::from_fn(21, 13, |x, y| Rgb([x as u8 * 9, y as u8 * 11, 77]));
        let init = InitMask { mask: mask(21, 13, [17, 4, 21, 12]), ..InitMask::default() };
        let inputs = init.inputs(&original, (24, 16), 8).unwrap();
        assert_eq!((inputs.picture.dimensions(), inputs.mask.dimensions()), ((24, 16), (24, 16)));
        assert_eq!(inputs.picture.get_pixel(23, 15), original.get_pixel(20, 12));
        assert_eq!(inputs.mask.get_pixel(23, 8).0[0], 255);
        assert_eq!((inputs.paste.size(), inputs.paste.cut(&original)), ((21, 13), inputs.picture.clone()));
        let result = inputs.paste.onto(&RgbImage::from_pixel(24, 16, Rgb([255; 3])));
        for (x, y, pixel) in original.enumerate_pixels() {
            let expected = if init.mask.get_pixel(x, y).0[0] == 0 { pixel.0 } else { [255; 3] };
            assert_eq!(result.get_pixel(x, y).0, expected, "{x}, {y}");
        }
        // Any other size scales.
        let scaled = init.inputs(&original, (32, 16), 8).unwrap();
        assert_eq!(scaled.paste.size(), (32, 16));
    }

    #[test]
    fn any_blur_of_any_mask_is_possible_and_spreads_as_far_as_it_says() {
        for (width, height, blur) in [(1, 1, 256), (8, 8, 256), (64, 3, 40), (300, 2, 256)] {
            let init = InitMask { mask: mask(width, height, [0, 0, width, height]), blur, padding: None };
            let inputs = init.inputs(&RgbImage::new(width, height), (width, height), 8).unwrap();
            assert!(inputs.mask.pixels().all(|pixel| pixel.0[0] == 255), "{width} x {height}, {blur}");
        }
        let init = InitMask { mask: mask(200, 8, [100, 0, 200, 8]), blur: 10, padding: None };
        let blurred = init.inputs(&RgbImage::new(200, 8), (200, 8), 8).unwrap().mask;
        let at = |x: u32| f64::from(blurred.get_pixel(x, 4).0[0]) / 255.0;
        // The edge of a Gaussian: a half on it, 16 % one deviation before it, next to nothing beyond three.
        assert!((at(100) - 0.5).abs() < 0.05 && (at(90) - 0.16).abs() < 0.04, "{} {}", at(100), at(90));
        assert!(at(60) == 0.0 && at(140) == 1.0);
    }

    #[test]
    fn a_mask_of_another_size_is_refused() {
        let init = InitMask { mask: GrayImage::new(8, 8), ..InitMask::default() };
        let message = init.inputs(&RgbImage::new(16, 8), (16, 8), 8).err().unwrap().to_string();
        assert!(message.contains("8x8") && message.contains("16x8"), "{message}");
    }
}
