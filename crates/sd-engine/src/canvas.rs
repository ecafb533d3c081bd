//! Outpainting at the seam: the contract's canvas around a picture.

use image::{GrayImage, RgbImage};
use operations_contract::bounds::{MAX_INPUT_PIXELS, MAX_INPUT_SIDE};
use operations_contract::{Extend, ImageInpaint, ModelCapabilities};

use crate::picture::{Mask, Picture};

/// A picture on its canvas.
pub(crate) struct Canvas {
    pub(crate) image: Picture,
    /// What is new, and what the request's own mask marks.
    pub(crate) mask: Mask,
    /// What the client should know.
    pub(crate) note: Option<String>,
}

/// Puts the picture on the canvas that the request wants around it, in sizes that the model can do, so that nothing that is
/// kept has to be scaled.
pub(crate) fn extended(
    image: &Picture,
    mask: Option<&Mask>,
    extend: Extend,
    request: &ImageInpaint,
    model: &ModelCapabilities,
) -> Result<Canvas, String> {
    let Extend { left, top, right, bottom, overlap } = extend;
    let size = (image.width(), image.height());
    let wanted = sd_inference::Extend { left, top, right, bottom, overlap };
    let asked = wanted.size(size);
    let wanted = wanted.to_multiple(size, model.size_multiple);
    let (width, height) = wanted.size(size);
    // Whoever works on a part of it, or names a size, has decided for scaling.
    let scaled =
        request.padding_mask_crop.is_some() || request.common.width.or(request.common.height).is_some();
    let max_side = if scaled { MAX_INPUT_SIDE } else { model.max_side };
    if width.max(height) > max_side || u64::from(width) * u64::from(height) > MAX_INPUT_PIXELS {
        return Err(format!(
            "makes a canvas of {width} x {height} pixels; at most {max_side} a side and {MAX_INPUT_PIXELS} in all are allowed"
        ));
    }
    let note = ((width, height) != asked).then(|| {
        let multiple = model.size_multiple;
        format!(
            "the canvas of {} x {} pixels grows to {width} x {height}: multiples of {multiple}",
            asked.0, asked.1
        )
    });
    let (image, mask) = (rgb(image)?, mask.map(gray).transpose()?);
    let (canvas, marks) = wanted.canvas(&image, mask.as_ref()).map_err(|error| error.to_string())?;
    Ok(Canvas {
        image: Picture::from_rgb(width, height, canvas.into_raw()).map_err(|error| error.to_string())?,
        mask: Mask::from_luma(width, height, marks.into_raw()).map_err(|error| error.to_string())?,
        note,
    })
}

fn rgb(picture: &Picture) -> Result<RgbImage, String> {
    RgbImage::from_raw(picture.width(), picture.height(), picture.rgb().to_vec())
        .ok_or_else(|| "has bytes that do not fit its size".into())
}

fn gray(mask: &Mask) -> Result<GrayImage, String> {
    GrayImage::from_raw(mask.width(), mask.height(), mask.luma().to_vec())
        .ok_or_else(|| "has bytes that do not fit its size".into())
}
