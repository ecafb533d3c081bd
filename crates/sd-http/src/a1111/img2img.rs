//! The fields that only `img2img` has.

use operations_contract::ImageData;
use serde_json::Value;

use super::payload::{Payload, says_nothing};
use super::request::IMG2IMG_STRENGTH;

/// `mask_blur` when the request says nothing.
const MASK_BLUR: i64 = 4;

pub(crate) fn translate(payload: &mut Payload<'_>) {
    let image = init_image(payload);
    resize_mode(payload, image.as_ref());
    let strength = payload.number("denoising_strength").unwrap_or(IMG2IMG_STRENGTH);
    payload.put("strength", strength);
    // Only checkpoints for edits by instruction look at it.
    payload.take("image_cfg_scale");
    payload.only("initial_noise_multiplier", |value| value.as_f64() == Some(1.0), "is possible as 1 only");
    payload.only("latent_mask", says_nothing, "is possible as null only: send mask");
    let masked = mask(payload);
    payload.put("operation", if masked { "image_inpaint" } else { "image_transform" });
}

/// The one picture to start from. Several would be drawn together by the web UI.
fn init_image(payload: &mut Payload<'_>) -> Option<ImageData> {
    let images = payload.take("init_images")?;
    match images.as_array().map(Vec::as_slice) {
        Some([image]) => {
            payload.put("init_image", image.clone());
            // What cannot be read is refused by the contract.
            ImageData::from_text(image.as_str()?).ok()
        }
        _ => {
            payload.refuse("init_images", images, "must be a list of one picture");
            payload.put("init_image", Value::Null);
            None
        }
    }
}

/// Pictures are scaled to the size that is asked for; cut or continued they are not.
fn resize_mode(payload: &mut Payload<'_>, image: Option<&ImageData>) {
    let Some(mode) = payload.whole("resize_mode").filter(|mode| *mode != 0) else { return };
    let sides = [payload.whole("width"), payload.whole("height")];
    let size = image.and_then(|image| sd_engine::read_texts(image.bytes()).ok()).map(|texts| texts.size);
    let same_ratio = match (sides, size) {
        ([Some(width), Some(height)], Some((own_width, own_height))) => {
            width.checked_mul(own_height.into()) == height.checked_mul(own_width.into())
        }
        ([None, None], _) => true,
        _ => false,
    };
    if !(matches!(mode, 1 | 2) && same_ratio) {
        let message = "is possible as 0, and where the picture has the ratio of width and height as 1 or 2";
        payload.refuse("resize_mode", &mode.into(), message);
    }
}

/// Whether there is a mask. Without one its fields mean nothing.
fn mask(payload: &mut Payload<'_>) -> bool {
    let mask = payload.take("mask").filter(|mask| !says_nothing(mask));
    let inverted = payload.flag("inpainting_mask_invert") == Some(true);
    let blur = mask_blur(payload);
    let fill = payload.whole("inpainting_fill").unwrap_or_default();
    let only_masked = payload.flag("inpaint_full_res").unwrap_or(true);
    let padding = payload.take("inpaint_full_res_padding").cloned().unwrap_or(0.into());
    payload.take("mask_round");
    let Some(mask) = mask else { return false };
    match inverted {
        true => invert(payload, mask),
        false => payload.put("mask_image", mask.clone()),
    }
    payload.put("mask_blur", blur);
    if only_masked {
        payload.put("padding_mask_crop", padding);
    }
    match fill {
        // It starts from the picture itself, noised. The web UI fills the hole with the colours around it first, which
        // is its default and does not show where all of it is redrawn.
        0 => payload.ignored.push("inpainting_fill".to_owned()),
        1 => {}
        other => {
            payload.refuse(
                "inpainting_fill",
                &other.into(),
                "is possible as 1 (original), and as 0, which is taken as 1",
            );
        }
    }
    true
}

/// One number, or the same for both directions.
fn mask_blur(payload: &mut Payload<'_>) -> i64 {
    let [both, x, y] = ["mask_blur", "mask_blur_x", "mask_blur_y"].map(|name| payload.whole(name));
    match (both, x, y) {
        (Some(both), ..) => both,
        (None, x, y) => {
            let (x, y) = (x.unwrap_or(MASK_BLUR), y.unwrap_or(MASK_BLUR));
            if x != y {
                payload.refuse("mask_blur_y", &y.into(), "must be as large as mask_blur_x");
            }
            x
        }
    }
}

fn invert(payload: &mut Payload<'_>, mask: &Value) {
    let text = mask.as_str().unwrap_or_default();
    let inverted = ImageData::from_text(text)
        .map_err(|error| error.to_string())
        .and_then(|mask| sd_engine::inverted_mask(mask.bytes()));
    match inverted {
        Ok(inverted) => payload.put("mask_image", ImageData::new(inverted).to_base64()),
        Err(message) => {
            let shown = Value::from(text.chars().take(40).collect::<String>());
            payload.refuse("mask", &shown, message);
            payload.put("mask_image", mask.clone());
        }
    }
}
