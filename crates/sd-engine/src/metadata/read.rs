//! What an image file tells about its making.

use std::io::Cursor;

use image::codecs::jpeg::JpegDecoder;
use image::codecs::webp::WebPDecoder;
use image::{ImageDecoder, ImageFormat};

use super::{JSON_KEY, PARAMETERS_KEY, exif};
use crate::images;

/// Texts and EXIF longer than this are no parameters. A few compressed kilobytes can claim gigabytes.
const MAX_TEXT: usize = 1 << 20;

/// Where ComfyUI keeps its graph.
const COMFY_KEYS: [&str; 2] = ["prompt", "workflow"];

/// The texts of an image file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileTexts {
    /// The file's format: `PNG`, `JPEG` or `WebP`.
    pub format: &'static str,
    /// Width and height in pixels, as the file is stored.
    pub size: (u32, u32),
    /// The `parameters` text of A1111 and its kin, ours included.
    pub parameters: Option<String>,
    /// Our own request as JSON.
    pub json: Option<String>,
    /// Whether ComfyUI left its graph in the file.
    pub comfy_graph: bool,
}

/// Reads what the file tells about its making. The pixels are not decoded.
///
/// # Errors
/// In words: no image file of a known format, or one that is broken.
pub fn read_texts(bytes: &[u8]) -> Result<FileTexts, String> {
    images::guarded(|| read_unguarded(bytes))
}

fn read_unguarded(bytes: &[u8]) -> Result<FileTexts, String> {
    let told = |error: &dyn std::fmt::Display| format!("cannot be read: {error}");
    let reader = Cursor::new(bytes);
    match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => png_texts(bytes).map_err(|error| told(&error)),
        Ok(ImageFormat::Jpeg) => exif_texts("JPEG", JpegDecoder::new(reader)).map_err(|error| told(&error)),
        Ok(ImageFormat::WebP) => {
            images::webp::check(bytes)?;
            exif_texts("WebP", WebPDecoder::new(reader)).map_err(|error| told(&error))
        }
        _ => Err("is no PNG, JPEG or WebP image".into()),
    }
}

fn png_texts(bytes: &[u8]) -> Result<FileTexts, png::DecodingError> {
    let bytes = with_our_texts(bytes);
    let limits = png::Limits { bytes: images::png::limit(&bytes) as usize };
    let mut reader = png::Decoder::new_with_limits(Cursor::new(&bytes), limits).read_info()?;
    let mut texts = chunks(reader.info());
    if texts.is_empty() {
        // Some programs write them behind the pixels. What is cut there leaves what was read so far.
        let _ = reader.finish();
        texts = chunks(reader.info());
    }
    let info = reader.info();
    let (comment, description) =
        info.exif_metadata.as_ref().map(|chunk| exif_of(chunk.to_vec())).unwrap_or_default();
    let text = |key: &str| texts.iter().find(|(keyword, _)| keyword == key).map(|(_, text)| text.clone());
    Ok(FileTexts {
        format: "PNG",
        size: info.size(),
        parameters: text(PARAMETERS_KEY).or(comment),
        json: text(JSON_KEY).or(description.and_then(ours)),
        comfy_graph: COMFY_KEYS.iter().any(|key| text(key).is_some()),
    })
}

/// The file with nothing beside the picture but one text under each keyword of ours: thousands of small chunks can each
/// unpack to [`MAX_TEXT`].
fn with_our_texts(bytes: &[u8]) -> Vec<u8> {
    let mut open: Vec<&str> = [PARAMETERS_KEY, JSON_KEY].into_iter().chain(COMFY_KEYS).collect();
    images::png::with_only(bytes, |kind, data| match kind {
        b"tEXt" | b"zTXt" | b"iTXt" => {
            let keyword = data.split(|byte| *byte == 0).next().unwrap_or_default();
            let found = open.iter().position(|key| key.as_bytes() == keyword);
            found.map(|at| open.swap_remove(at)).is_some()
        }
        kind => images::png::is_of_the_picture(kind),
    })
}

/// Keyword and text of every text chunk that can be read.
fn chunks(info: &png::Info<'_>) -> Vec<(String, String)> {
    let plain = info.uncompressed_latin1_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.text.clone()));
    let compressed = info.compressed_latin1_text.iter().filter_map(|chunk| {
        let mut chunk = chunk.clone();
        chunk.decompress_text_with_limit(MAX_TEXT).ok()?;
        Some((chunk.keyword.clone(), chunk.get_text().ok()?))
    });
    let international = info.utf8_text.iter().filter_map(|chunk| {
        let mut chunk = chunk.clone();
        chunk.decompress_text_with_limit(MAX_TEXT).ok()?;
        Some((chunk.keyword.clone(), chunk.get_text().ok()?))
    });
    plain.chain(compressed).chain(international).collect()
}

fn exif_texts<D: ImageDecoder>(
    format: &'static str,
    decoder: image::ImageResult<D>,
) -> image::ImageResult<FileTexts> {
    let mut decoder = decoder?;
    let (parameters, description) = decoder.exif_metadata()?.map(exif_of).unwrap_or_default();
    let json = description.and_then(ours);
    Ok(FileTexts { format, size: decoder.dimensions(), parameters, json, comfy_graph: false })
}

/// Comment and description of a chunk that is not too long to be ours.
fn exif_of(chunk: Vec<u8>) -> (Option<String>, Option<String>) {
    match chunk.len() <= MAX_TEXT {
        true => exif::read(chunk),
        false => (None, None),
    }
}

/// A description that is a request of ours, and not what somebody wrote about the picture.
fn ours(description: String) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(&description).ok()?;
    value.get("operation").is_some().then_some(description)
}
