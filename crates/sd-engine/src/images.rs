//! Input images: from the bytes of a file to pixels, within bounds. Whatever a user sends as a picture is read here.
//!
//! The room that a file takes follows from its own length and from the pixels that it declares, which are bounded: nothing
//! else in it is unpacked.

mod jpeg;
pub(crate) mod png;
pub(crate) mod webp;

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{DynamicImage, ImageDecoder, ImageFormat, Limits, RgbImage};
use operations_contract::bounds::{MAX_INPUT_PIXELS, MAX_INPUT_SIDE};
use operations_contract::{ImageData, Preprocessor};
use sd_inference::preprocess::{self, CannyThresholds, Near};

use crate::picture::{Mask, Picture};

/// What shows through a picture where it is transparent.
const BEHIND_A_PICTURE: u8 = 255;
/// What shows through a mask where it is transparent: nothing is marked there.
const BEHIND_A_MASK: u8 = 0;

/// Reads a PNG, JPEG or WebP: turned as its EXIF says, in 8 bits, without transparency (on white); of an animation the
/// first picture.
///
/// # Errors
/// In words: no such file, one that is cut or broken, or one that declares more pixels than
/// [`MAX_INPUT_PIXELS`] or a longer side than [`MAX_INPUT_SIDE`]; those are not decoded.
pub fn read_picture(bytes: &[u8]) -> Result<Picture, String> {
    let pixels = opaque(decode(bytes)?, BEHIND_A_PICTURE);
    Picture::from_rgb(pixels.width(), pixels.height(), pixels.into_raw()).map_err(|error| error.to_string())
}

pub(crate) fn picture(data: &ImageData) -> Result<Picture, String> {
    read_picture(data.bytes())
}

/// A mask in grey; of colours the luma of ITU-R BT.601, as PIL and with it the reference have it.
pub(crate) fn mask(data: &ImageData) -> Result<Mask, String> {
    let pixels = opaque(decode(data.bytes())?, BEHIND_A_MASK);
    let (width, height) = pixels.dimensions();
    let luma = pixels.pixels().map(|pixel| luma(pixel.0)).collect();
    Mask::from_luma(width, height, luma).map_err(|error| error.to_string())
}

/// A picture and the mask that its alpha channel is: what is transparent is marked.
pub(crate) fn picture_and_mask(data: &ImageData) -> Result<(Picture, Mask), String> {
    let pixels = decode(data.bytes())?;
    if !pixels.color().has_alpha() {
        return Err("has no alpha channel to take the mask from".into());
    }
    let (width, height) = (pixels.width(), pixels.height());
    let marked = pixels.to_rgba8().pixels().map(|pixel| 255 - pixel.0[3]).collect();
    let mask = Mask::from_luma(width, height, marked).map_err(|error| error.to_string())?;
    let pixels = opaque(pixels, BEHIND_A_PICTURE).into_raw();
    Ok((Picture::from_rgb(width, height, pixels).map_err(|error| error.to_string())?, mask))
}

/// 255 where a picture is transparent, 0 where it is opaque; `None` for a picture without an alpha channel.
pub(crate) fn alpha_mask(bytes: &[u8]) -> Result<Option<Mask>, String> {
    let pixels = decode(bytes)?;
    if !pixels.color().has_alpha() {
        return Ok(None);
    }
    let marked = pixels.to_rgba8().pixels().map(|pixel| 255 - pixel.0[3]).collect();
    Mask::from_luma(pixels.width(), pixels.height(), marked).map(Some).map_err(|error| error.to_string())
}

/// A control picture, as a ControlNet is to see it.
pub(crate) fn control(data: &ImageData, preprocessor: Preprocessor) -> Result<Picture, String> {
    let given = decode(data.bytes())?;
    let colours = |given: DynamicImage| opaque(given, BEHIND_A_PICTURE);
    let pixels = match preprocessor {
        Preprocessor::Canny => preprocess::canny(&colours(given), CannyThresholds::default()),
        Preprocessor::Depth => preprocess::depth(&given, Near::Bright),
        Preprocessor::DepthInverted => preprocess::depth(&given, Near::Dark),
        Preprocessor::Lineart => preprocess::lineart(&colours(given)),
        Preprocessor::None => colours(given),
        other => return Err(format!("cannot be prepared: `{other}` is not implemented")),
    };
    Picture::from_rgb(pixels.width(), pixels.height(), pixels.into_raw()).map_err(|error| error.to_string())
}

/// What a client should know of a file that can be read.
pub(crate) fn note(data: &ImageData) -> Option<&'static str> {
    let animated = match image::guess_format(data.bytes()).ok()? {
        ImageFormat::Png => png::is_animated(data.bytes()),
        ImageFormat::WebP => {
            let decoder = || WebPDecoder::new(Cursor::new(data.bytes())).map_err(|error| error.to_string());
            guarded(|| decoder().map(|decoder| decoder.has_animation())).ok()?
        }
        _ => false,
    };
    animated.then_some("is an animation; its first picture is taken")
}

fn decode(bytes: &[u8]) -> Result<DynamicImage, String> {
    guarded(|| decode_unguarded(bytes))
}

/// Decoders are other people's: where one panics over a broken file, the file is at fault, and not the job or the worker.
pub(crate) fn guarded<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("cannot be read: its decoder gave up".into()))
}

fn decode_unguarded(bytes: &[u8]) -> Result<DynamicImage, String> {
    let reader = Cursor::new(bytes);
    match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => {
            let bytes = png::with_only(bytes, |kind, _| png::is_of_the_picture(kind));
            // Its decoder refuses some sizes itself, without naming them.
            if let Ok(header) = ::png::Decoder::new(Cursor::new(&bytes)).read_header_info() {
                within_bounds(header.size())?;
            }
            let mut limits = Limits::no_limits();
            limits.max_alloc = Some(png::limit(&bytes));
            pixels(PngDecoder::with_limits(Cursor::new(&bytes), limits))
        }
        Ok(ImageFormat::Jpeg) => {
            let pixels = pixels(JpegDecoder::new(reader))?;
            match jpeg::is_whole(bytes) {
                true => Ok(pixels),
                false => Err("cannot be read: the file is cut".into()),
            }
        }
        Ok(ImageFormat::WebP) => {
            webp::check(bytes)?;
            pixels(WebPDecoder::new(reader))
        }
        _ => Err("is no PNG, JPEG or WebP image".into()),
    }
}

/// The decoder has read the header and no more: a file of a few kilobytes can claim to be a picture of gigapixels.
fn pixels<D: ImageDecoder>(decoder: image::ImageResult<D>) -> Result<DynamicImage, String> {
    let told = |error: image::ImageError| format!("cannot be read: {error}");
    let mut decoder = decoder.map_err(told)?;
    within_bounds(decoder.dimensions())?;
    // A picture that a camera stored on its side: turn it as viewers do.
    let orientation = decoder.orientation().map_err(told)?;
    let mut decoded = DynamicImage::from_decoder(decoder).map_err(told)?;
    decoded.apply_orientation(orientation);
    Ok(decoded)
}

fn within_bounds((width, height): (u32, u32)) -> Result<(), String> {
    if width.max(height) > MAX_INPUT_SIDE || u64::from(width) * u64::from(height) > MAX_INPUT_PIXELS {
        return Err(format!(
            "has {width} x {height} pixels; at most {MAX_INPUT_SIDE} a side and {MAX_INPUT_PIXELS} in all are allowed"
        ));
    }
    Ok(())
}

/// 8 bits of red, green and blue, over a grey of this value where the picture is transparent.
fn opaque(pixels: DynamicImage, behind: u8) -> RgbImage {
    if !pixels.color().has_alpha() {
        return pixels.into_rgb8();
    }
    let pixels = pixels.into_rgba8();
    let mut result = RgbImage::new(pixels.width(), pixels.height());
    for (to, from) in result.pixels_mut().zip(pixels.pixels()) {
        let [red, green, blue, alpha] = from.0.map(u32::from);
        let over = |value: u32| ((value * alpha + u32::from(behind) * (255 - alpha) + 127) / 255) as u8;
        to.0 = [over(red), over(green), over(blue)];
    }
    result
}

/// With PIL's weights, in 65536ths.
fn luma(pixel: [u8; 3]) -> u8 {
    let [red, green, blue] = pixel.map(u32::from);
    ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests;
