//! A model's own choices, and the limits that they must keep.

use std::ops::RangeInclusive;

use sd_models::Error::UnsupportedConfig;
use serde::Deserialize;

use crate::{LatentRgb, Result};

/// A model's own choices, from the optional `sd-worker.json` in its folder.
///
/// The diffusers layout has no place for these; where the file is missing, the usual ones are taken. They are held to the limits
/// of requests when the model is loaded: what a request may not ask for is no default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelDefaults {
    /// Denoising steps, in [`STEPS`](Self::STEPS).
    pub default_steps: Option<usize>,
    /// Guidance scale, in [`GUIDANCE_SCALE`](Self::GUIDANCE_SCALE).
    pub default_guidance_scale: Option<f64>,
    /// Width in pixels: a multiple of [`PipelineInfo::size_multiple`](crate::PipelineInfo::size_multiple), in
    /// [`SIDE`](Self::SIDE). A model whose native side is below these may name that, or more.
    pub default_width: Option<usize>,
    /// Height in pixels, likewise.
    pub default_height: Option<usize>,
    /// How latents become colours in previews, for a VAE of the model's own.
    pub latent_rgb: Option<LatentRgb>,
}

impl ModelDefaults {
    /// The steps that may be a default.
    pub const STEPS: RangeInclusive<usize> = 1..=150;
    /// The guidance scales that may be.
    pub const GUIDANCE_SCALE: RangeInclusive<f64> = 0.0..=30.0;
    /// The sides that may be, in pixels.
    pub const SIDE: RangeInclusive<usize> = 64..=2048;

    /// Checks the limits. `file` is what messages call the file, `native` the side in pixels that the model was trained with, and
    /// sides are multiples of `multiple`.
    ///
    /// # Errors
    /// [`UnsupportedConfig`] for the first field outside them.
    pub(super) fn check(&self, file: &str, native: usize, multiple: usize) -> Result<()> {
        let refuse = |field: &str, found: String, supported: String| {
            Err(UnsupportedConfig { file: file.into(), field: field.into(), found, supported }.into())
        };
        if let Some(steps) = self.default_steps.filter(|steps| !Self::STEPS.contains(steps)) {
            return refuse("default_steps", steps.to_string(), format!("{:?}", Self::STEPS));
        }
        let scale = self.default_guidance_scale.filter(|scale| !Self::GUIDANCE_SCALE.contains(scale));
        if let Some(scale) = scale {
            let (least, most) = (Self::GUIDANCE_SCALE.start(), Self::GUIDANCE_SCALE.end());
            return refuse("default_guidance_scale", scale.to_string(), format!("{least}..={most}"));
        }
        let least = native.min(*Self::SIDE.start()).max(multiple);
        let sides = least..=*Self::SIDE.end();
        for (field, side) in [("default_width", self.default_width), ("default_height", self.default_height)]
        {
            let wrong = |side: &usize| !sides.contains(side) || !side.is_multiple_of(multiple);
            if let Some(side) = side.filter(wrong) {
                return refuse(field, side.to_string(), format!("a multiple of {multiple} in {sides:?}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_models_may_name_their_own_side() {
        let width = |side| ModelDefaults { default_width: Some(side), ..ModelDefaults::default() };
        let check = |side, native, multiple| width(side).check("sd-worker.json", native, multiple);
        let message = |side, native, multiple| check(side, native, multiple).unwrap_err().to_string();
        assert!(check(32, 32, 8).is_ok());
        assert_eq!(
            message(24, 32, 8),
            "sd-worker.json: `default_width` is 24, but supported is a multiple of 8 in 32..=2048"
        );
        assert!(message(32, 512, 8).ends_with("8 in 64..=2048"));
        assert!(message(72, 512, 16).ends_with("16 in 64..=2048"));
    }
}
