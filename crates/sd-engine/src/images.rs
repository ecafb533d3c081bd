//! Input images: from the bytes of a file to pixels, within bounds.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use operations_contract::{ImageData, Preprocessor};
use sd_inference::preprocess::{self, CannyThresholds, Near};

use crate::picture::{Mask, Picture};

/// A file of a few kilobytes can claim to be a picture of gigapixels.
const MAX_SIDE: u32 = 8192;
const MAX_PIXELS: u64 = 4096 * 4096;

pub(crate) fn picture(data: &ImageData) -> Result<Picture, String> {
    let pixels = decode(data)?.into_rgb8();
    Picture::from_rgb(pixels.width(), pixels.height(), pixels.into_raw()).map_err(|error| error.to_string())
}

pub(crate) fn mask(data: &ImageData) -> Result<Mask, String> {
    let pixels = decode(data)?.into_luma8();
    Mask::from_luma(pixels.width(), pixels.height(), pixels.into_raw()).map_err(|error| error.to_string())
}

/// A control picture, as a ControlNet is to see it.
pub(crate) fn control(data: &ImageData, preprocessor: Preprocessor) -> Result<Picture, String> {
    let given = decode(data)?;
    let pixels = match preprocessor {
        Preprocessor::Canny => preprocess::canny(&given.into_rgb8(), CannyThresholds::default()),
        Preprocessor::Depth => preprocess::depth(&given, Near::Bright),
        Preprocessor::DepthInverted => preprocess::depth(&given, Near::Dark),
        Preprocessor::Lineart => preprocess::lineart(&given.into_rgb8()),
        Preprocessor::None => given.into_rgb8(),
        other => return Err(format!("cannot be prepared: `{other}` is not implemented")),
    };
    Picture::from_rgb(pixels.width(), pixels.height(), pixels.into_raw()).map_err(|error| error.to_string())
}

fn decode(data: &ImageData) -> Result<DynamicImage, String> {
    let told = |error: image::ImageError| format!("cannot be read: {error}");
    let mut reader = ImageReader::new(Cursor::new(data.bytes()))
        .with_guessed_format()
        .map_err(|error| error.to_string())?;
    if reader.format().is_none() {
        return Err("is no PNG, JPEG or WebP image".into());
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(told)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!("has {width} x {height} pixels; at most {MAX_PIXELS} are allowed"));
    }
    // A picture that a camera stored on its side: turn it as viewers do.
    let orientation = decoder.orientation().map_err(told)?;
    let mut decoded = DynamicImage::from_decoder(decoder).map_err(told)?;
    decoded.apply_orientation(orientation);
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        DynamicImage::new_rgb8(width, height)
            .write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png)
            .unwrap();
        bytes
    }

    #[test]
    fn reads_a_picture_and_a_mask() {
        let data = ImageData::new(png(5, 3));
        let (picture, mask) = (picture(&data).unwrap(), mask(&data).unwrap());
        assert_eq!((picture.width(), picture.height()), (5, 3));
        assert_eq!(mask.luma().len(), 15);
    }

    #[test]
    fn text_and_cut_files_are_refused() {
        assert_eq!(picture(&ImageData::new(*b"hello")).unwrap_err(), "is no PNG, JPEG or WebP image");
        let mut cut = png(64, 64);
        cut.truncate(cut.len() / 2);
        assert!(picture(&ImageData::new(cut)).unwrap_err().starts_with("cannot be read"));
    }

    #[test]
    fn a_small_file_that_claims_to_be_huge_is_refused_before_it_is_decoded() {
        let mut bomb = png(8, 8);
        // Width and height stand in the IHDR chunk; its checksum follows.
        bomb[16..24].copy_from_slice(&[0, 0, 0x1f, 0xff, 0, 0, 0x1f, 0xff]);
        let crc = crc32(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&crc.to_be_bytes());
        let error = picture(&ImageData::new(bomb)).unwrap_err();
        assert!(error.starts_with("has 8191 x 8191 pixels"), "{error}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
        })
    }
}
