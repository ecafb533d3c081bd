//! From pixels to the bytes of an image file.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder};
use operations_contract::{ImageFormat, Output};

use crate::metadata::{JSON_KEY, PARAMETERS_KEY, exif};
use crate::picture::Picture;

/// What one segment of a JPEG holds beside its own length and the header of EXIF.
const MAX_JPEG_EXIF: usize = u16::MAX as usize - 2 - 6;

/// Pairs of keyword and text.
type Texts<'a> = Vec<(&'a str, String)>;

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
    /// The texts of a JPEG or WebP.
    #[error("cannot write the image's metadata: {0}")]
    Exif(#[from] ::exif::Error),
    /// More text than a JPEG takes.
    #[error("a JPEG takes at most {MAX_JPEG_EXIF} bytes of metadata, not {0}")]
    TooMuchText(usize),
}

/// Writes an image file. `texts` are pairs of keyword and text: any in PNG; in JPEG and WebP those that
/// [`PARAMETERS_KEY`] and [`JSON_KEY`] name, in EXIF.
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
            let chunk = exif_of(texts)?;
            if chunk.len() > MAX_JPEG_EXIF {
                return Err(EncodeError::TooMuchText(chunk.len()));
            }
            let encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
            with_exif(encoder, chunk)?.write_image(pixels, width, height, ExtendedColorType::Rgb8)?;
        }
        ImageFormat::Webp => {
            let encoder = with_exif(WebPEncoder::new_lossless(&mut bytes), exif_of(texts)?)?;
            encoder.write_image(pixels, width, height, ExtendedColorType::Rgb8)?;
        }
        // PNG, and whatever format the contract may get before this function does.
        _ => write_png(&mut bytes, picture, texts)?,
    }
    Ok(bytes)
}

/// The texts that a file of this format has room for, and a word about those that it has not.
pub(crate) fn fitting(
    format: ImageFormat,
    mut texts: Texts<'_>,
) -> Result<(Texts<'_>, Option<String>), EncodeError> {
    let mut left_out = Vec::new();
    // The last ones go first.
    while format == ImageFormat::Jpeg && exif_of(&texts)?.len() > MAX_JPEG_EXIF {
        left_out.extend(texts.pop().map(|(key, _)| key));
    }
    let told = (!left_out.is_empty()).then(|| {
        let left_out = left_out.join("` and `");
        format!("a JPEG has no room for so much metadata: `{left_out}` was left out")
    });
    Ok((texts, told))
}

fn exif_of(texts: &[(&str, String)]) -> Result<Vec<u8>, EncodeError> {
    let text = |key: &str| texts.iter().find(|(known, _)| *known == key).map(|(_, text)| text.as_str());
    Ok(exif::write(text(PARAMETERS_KEY), text(JSON_KEY))?)
}

fn with_exif<E: ImageEncoder>(mut encoder: E, chunk: Vec<u8>) -> Result<E, EncodeError> {
    if !chunk.is_empty() {
        encoder.set_exif_metadata(chunk).map_err(image::ImageError::Unsupported)?;
    }
    Ok(encoder)
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
    fn texts_stand_in_every_format() {
        let texts = [
            (PARAMETERS_KEY, "a star\nSteps: 3".to_owned()),
            (JSON_KEY, r#"{"operation":"東京"}"#.to_owned()),
        ];
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Webp] {
            let bytes = encode_image(&picture(), &output(format), &texts).unwrap();
            let read = crate::metadata::read_texts(&bytes).unwrap();
            assert_eq!(read.size, (4, 2), "{format}");
            assert_eq!(read.parameters.as_deref(), Some("a star\nSteps: 3"), "{format}");
            let json: serde_json::Value = serde_json::from_str(&read.json.unwrap()).unwrap();
            assert_eq!(json["operation"], "東京", "{format}");

            let bytes = encode_image(&picture(), &output(format), &[]).unwrap();
            let read = crate::metadata::read_texts(&bytes).unwrap();
            assert_eq!((read.parameters, read.json), (None, None), "{format}");
        }
    }

    /// What does not fit is left out and told; the file is never broken by it.
    #[test]
    fn a_jpeg_takes_only_so_much_text() {
        let texts = |parameters: usize, json: usize| {
            vec![
                (PARAMETERS_KEY, "p".repeat(parameters)),
                (JSON_KEY, format!("{{\"operation\":\"{}\"}}", "j".repeat(json))),
            ]
        };
        for (parameters, json, kept) in [(100, 100, 2), (100, 70_000, 1), (40_000, 100, 0)] {
            let all = texts(parameters, json);
            let (fit, told) = fitting(ImageFormat::Jpeg, all.clone()).unwrap();
            assert_eq!(fit.len(), kept, "{parameters} and {json}");
            assert_eq!(told.is_some(), kept < 2);
            let bytes = encode_image(&picture(), &output(ImageFormat::Jpeg), &fit).unwrap();
            assert_eq!(image::load_from_memory(&bytes).unwrap().width(), 4);
            assert_eq!(crate::metadata::read_texts(&bytes).unwrap().parameters.is_some(), kept > 0);
            assert_eq!(encode_image(&picture(), &output(ImageFormat::Jpeg), &all).is_ok(), kept == 2);
            assert_eq!(fitting(ImageFormat::Webp, all).unwrap().0.len(), 2);
        }
    }

    #[test]
    fn shrinking_keeps_the_shape() {
        let small = shrink(Picture::filled(400, 100, [1, 2, 3]), 100);
        assert_eq!((small.width(), small.height()), (100, 25));
        assert_eq!(&small.rgb()[..3], [1, 2, 3]);
        assert_eq!(shrink(picture(), 100), picture());
    }
}
