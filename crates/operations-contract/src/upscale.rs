//! `image_upscale`: the one operation that draws nothing, with fields of its own.

use serde::Serialize;

use crate::bounds;
use crate::fields::{Faults, Fields};
use crate::image_data::ImageData;
use crate::names::Priority;
use crate::parse;
use crate::request::{Output, Tiling};
use crate::validate;

/// `image_upscale`: enlarges a picture by a network.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImageUpscale {
    /// The picture to enlarge.
    pub image: ImageData,
    /// Which network, by its name on the worker; absent: the first that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// By how much the sides of the result are longer; absent: as the network does it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// Side of the tiles that the picture is cut into, in pixels: memory grows with its square.
    pub tile: u32,
    /// How many pixels on each side of a tile are shared with the next one; at most a quarter of it.
    pub margin: u32,
    /// Which edges of the picture meet.
    #[serde(skip_serializing_if = "Tiling::is_off")]
    pub tiling: Tiling,
    /// The files that come out.
    pub output: Output,
    /// Which waiting job goes first.
    pub priority: Priority,
    /// Milliseconds from acceptance after which the job is given up; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Whether the job is cancelled when the last of those who follow it leaves, once there was one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cancel_on_disconnect: bool,
    /// Echoed, for a router above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hive_id: Option<String>,
    /// Echoed, for a router above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
}

impl Default for ImageUpscale {
    fn default() -> Self {
        Self {
            image: ImageData::default(),
            model: None,
            scale: None,
            tile: 192,
            margin: 16,
            tiling: Tiling::default(),
            output: Output::default(),
            priority: Priority::Normal,
            deadline_ms: None,
            cancel_on_disconnect: false,
            hive_id: None,
            worker_id: None,
        }
    }
}

pub(crate) fn read(fields: &mut Fields<'_>) -> ImageUpscale {
    let default = ImageUpscale::default();
    ImageUpscale {
        image: parse::required_image(fields, "image"),
        model: fields.text("model"),
        scale: fields.number("scale"),
        tile: fields.u32("tile", bounds::UPSCALE_TILE).unwrap_or(default.tile),
        margin: fields.u32("margin", bounds::UPSCALE_MARGIN).unwrap_or(default.margin),
        tiling: fields.object("tiling", parse::tiling).unwrap_or_default(),
        output: fields.object("output", parse::output).unwrap_or_default(),
        priority: fields.name("priority").unwrap_or(default.priority),
        deadline_ms: fields.u64("deadline_ms", bounds::DEADLINE_MS),
        cancel_on_disconnect: fields.flag("cancel_on_disconnect").unwrap_or(default.cancel_on_disconnect),
        hive_id: fields.text("hive_id"),
        worker_id: fields.text("worker_id"),
    }
}

pub(crate) fn check(request: &ImageUpscale, faults: &mut Faults) {
    let ImageUpscale { image, scale, tile, margin, .. } = request;
    validate::image("image", image, faults);
    if let Some(scale) = *scale {
        faults.number("scale", scale, bounds::UPSCALE_SCALE);
    }
    faults.whole("tile", (*tile).into(), bounds::UPSCALE_TILE);
    let most = match bounds::UPSCALE_TILE.contains(&u64::from(*tile)) {
        true => u64::from(tile / 4),
        false => *bounds::UPSCALE_MARGIN.end(),
    };
    faults.whole("margin", (*margin).into(), *bounds::UPSCALE_MARGIN.start()..=most);
}
