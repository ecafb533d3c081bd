//! Masks as other programs have them, brought into the form that the contract has: white is repainted.

use operations_contract::{ImageData, ImageFormat, Output};

use crate::encode::encode_image;
use crate::images;
use crate::picture::{Mask, Picture};

/// The mask that is white where a picture is fully transparent and black elsewhere, as a PNG; `None` where no pixel is
/// fully transparent.
///
/// # Errors
/// In words: no picture that can be read.
pub fn transparent_mask(bytes: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let Some(mask) = images::alpha_mask(bytes)? else { return Ok(None) };
    let marked: Vec<u8> = mask.luma().iter().map(|value| if *value == 255 { 255 } else { 0 }).collect();
    if !marked.contains(&255) {
        return Ok(None);
    }
    png(mask.width(), mask.height(), &marked).map(Some)
}

/// A mask with black and white exchanged, as a PNG.
///
/// # Errors
/// In words: no picture that can be read.
pub fn inverted_mask(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mask = images::mask(&ImageData::new(bytes))?;
    let inverted: Vec<u8> = mask.luma().iter().map(|value| 255 - value).collect();
    png(mask.width(), mask.height(), &inverted)
}

fn png(width: u32, height: u32, luma: &[u8]) -> Result<Vec<u8>, String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let grey = Mask::from_luma(width, height, luma.to_vec()).map_err(|error| told(&error))?;
    let rgb = grey.luma().iter().flat_map(|value| [*value; 3]).collect();
    let picture = Picture::from_rgb(width, height, rgb).map_err(|error| told(&error))?;
    let output = Output { format: ImageFormat::Png, ..Output::default() };
    encode_image(&picture, &output, &[]).map_err(|error| told(&error))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{Rgba, RgbaImage};

    use super::*;

    fn written(image: &RgbaImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn luma(bytes: &[u8]) -> Vec<u8> {
        image::load_from_memory(bytes).unwrap().into_luma8().into_raw()
    }

    #[test]
    fn only_what_is_fully_transparent_is_marked() {
        let alphas = [0, 1, 128, 255];
        let image = RgbaImage::from_fn(4, 1, |x, _| Rgba([7, 7, 7, alphas[x as usize]]));
        assert_eq!(luma(&transparent_mask(&written(&image)).unwrap().unwrap()), [255, 0, 0, 0]);
        let opaque = RgbaImage::from_pixel(2, 2, Rgba([0, 0, 0, 1]));
        assert_eq!(transparent_mask(&written(&opaque)).unwrap(), None);
        let grey = luma(&inverted_mask(&written(&opaque)).unwrap());
        assert!(transparent_mask(&inverted_mask(&written(&opaque)).unwrap()).unwrap().is_none(), "{grey:?}");
        assert!(transparent_mask(b"no picture").is_err());
    }

    #[test]
    fn inverting_exchanges_black_and_white() {
        let image = RgbaImage::from_fn(3, 1, |x, _| Rgba([x as u8 * 100, x as u8 * 100, x as u8 * 100, 255]));
        assert_eq!(luma(&inverted_mask(&written(&image)).unwrap()), [255, 155, 55]);
    }
}
