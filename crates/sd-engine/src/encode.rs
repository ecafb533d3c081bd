//! From pixels to the bytes of an image file.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder};
use operations_contract::{ImageFormat, Output};

use crate::picture::Picture;

/// An image file could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// PNG.
    #[error("cannot encode the image: {0}")]
    Png(#[from] png::EncodingError),
    /// Another format.
    #[error("cannot encode the image: {0}")]
    Image(#[from] image::ImageError),
}

/// Writes an image file. `texts` are pairs of keyword and text; only PNG carries them.
pub fn encode_image(
    picture: &Picture,
    output: &Output,
    texts: &[(&str, String)],
) -> Result<Vec<u8>, EncodeError> {
    let (width, height, pixels) = (picture.width(), picture.height(), picture.rgb());
    let mut bytes = Vec::new();
    match output.format {
        ImageFormat::Jpeg => {
            let quality = u8::try_from(output.quality.clamp(1, 100)).unwrap_or(100);
            JpegEncoder::new_with_quality(&mut bytes, quality).write_image(
                pixels,
                width,
                height,
                ExtendedColorType::Rgb8,
            )?;
        }
        ImageFormat::Webp => {
            WebPEncoder::new_lossless(&mut bytes).write_image(
                pixels,
                width,
                height,
                ExtendedColorType::Rgb8,
            )?;
        }
        // PNG, and whatever format the contract may get before this function does.
        _ => write_png(&mut bytes, picture, texts)?,
    }
    Ok(bytes)
}

/// With the `png` crate: the encoder of `image` writes no text chunks.
fn write_png(bytes: &mut Vec<u8>, picture: &Picture, texts: &[(&str, String)]) -> Result<(), EncodeError> {
    let mut encoder = png::Encoder::new(Cursor::new(bytes), picture.width(), picture.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    for (keyword, text) in texts {
        // tEXt holds Latin-1 only; readers of these keys understand iTXt as well.
        if text.chars().all(|c| u32::from(c) < 256) {
            encoder.add_text_chunk((*keyword).to_owned(), text.clone())?;
        } else {
            encoder.add_itxt_chunk((*keyword).to_owned(), text.clone())?;
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(picture.rgb())?;
    writer.finish()?;
    Ok(())
}

/// A picture whose longer side is at most `max_side`.
pub(crate) fn shrink(picture: Picture, max_side: u32) -> Picture {
    let (width, height) = (picture.width(), picture.height());
    if width.max(height) <= max_side {
        return picture;
    }
    let Some(pixels) = image::RgbImage::from_raw(width, height, picture.rgb().to_vec()) else {
        return picture;
    };
    let scale = f64::from(max_side) / f64::from(width.max(height));
    let side = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
    let small = image::imageops::thumbnail(&pixels, side(width), side(height));
    Picture::from_rgb(small.width(), small.height(), small.into_raw()).unwrap_or(picture)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        Picture::from_rgb(4, 2, (0..24).map(|n| n * 10).collect()).unwrap()
    }

    fn output(format: ImageFormat) -> Output {
        Output { format, ..Output::default() }
    }

    #[test]
    fn lossless_formats_give_the_pixels_back() {
        for (format, decoder) in
            [(ImageFormat::Png, image::ImageFormat::Png), (ImageFormat::Webp, image::ImageFormat::WebP)]
        {
            let bytes = encode_image(&picture(), &output(format), &[]).unwrap();
            let decoded = image::load_from_memory_with_format(&bytes, decoder).unwrap().into_rgb8();
            assert_eq!(decoded.into_raw(), picture().rgb(), "{format}");
        }
    }

    #[test]
    fn quality_makes_a_jpeg_smaller() {
        let noise = (0..64 * 64 * 3u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let noise = Picture::from_rgb(64, 64, noise).unwrap();
        let size = |quality| {
            let output = Output { format: ImageFormat::Jpeg, quality, metadata: true };
            encode_image(&noise, &output, &[]).unwrap().len()
        };
        assert!(size(10) < size(95));
    }

    #[test]
    fn texts_stand_in_the_png_in_latin_1_or_utf_8() {
        let texts = [("parameters", "héllo".to_owned()), ("sd-worker", "東京".to_owned())];
        let bytes = encode_image(&picture(), &output(ImageFormat::Png), &texts).unwrap();
        let mut reader = png::Decoder::new(Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let info = reader.info();
        assert_eq!(info.uncompressed_latin1_text[0].text, "héllo");
        assert_eq!(info.utf8_text[0].get_text().unwrap(), "東京");
    }

    #[test]
    fn shrinking_keeps_the_shape() {
        let small = shrink(Picture::filled(400, 100, [1, 2, 3]), 100);
        assert_eq!((small.width(), small.height()), (100, 25));
        assert_eq!(&small.rgb()[..3], [1, 2, 3]);
        assert_eq!(shrink(picture(), 100), picture());
    }
}
