//! Control pictures: ControlNets that steer a run, and what makes control pictures out of others.

mod net;
pub mod preprocess;
mod run;

pub use net::ControlNet;
pub(crate) use run::{Controls, Moment};

use image::RgbImage;

use crate::{Error, Result};

/// A picture that steers a run, by a ControlNet that understands it.
#[derive(Debug, Clone, PartialEq)]
pub struct Control {
    /// The net, loaded by the pipeline that runs.
    pub net: ControlNet,
    /// The control picture: edges, depths, whatever the net was trained on. If it is not as large as the request wants,
    /// it is scaled to that, whatever its proportions.
    pub image: RgbImage,
    /// How strongly it counts: 1 as trained, 0 not at all.
    pub conditioning_scale: f64,
    /// From which share of the steps on it counts, 0 to 1.
    pub start: f64,
    /// Until which share of the steps it counts, 0 to 1, after `start`.
    pub end: f64,
}

impl Control {
    /// `image` by `net`, as strongly as trained and in all steps.
    pub fn new(net: ControlNet, image: RgbImage) -> Self {
        Self { net, image, conditioning_scale: 1.0, start: 0.0, end: 1.0 }
    }

    /// Whether all of its fields are within their ranges.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] names the field that is not.
    pub(crate) fn check(&self) -> Result<()> {
        let Self { conditioning_scale, start, end, image, .. } = self;
        let refused = |field, value: String, limit: &str| {
            Err(Error::InvalidRequest { field, value, limit: limit.into() })
        };
        let share = |value: &f64| (0.0..=1.0).contains(value);
        match () {
            () if !conditioning_scale.is_finite() => {
                let value = conditioning_scale.to_string();
                refused("controls.conditioning_scale", value, "a finite number")
            }
            () if !share(start) => refused("controls.start", start.to_string(), "a number from 0 to 1"),
            () if !share(end) => refused("controls.end", end.to_string(), "a number from 0 to 1"),
            () if start >= end => refused("controls.end", end.to_string(), "after controls.start"),
            () if image.width() == 0 || image.height() == 0 => {
                refused("controls.image", "empty".into(), "a picture with pixels")
            }
            () => Ok(()),
        }
    }

    /// Whether it counts in the step after `taken` of `total`: when all of that step lies within its share.
    pub(crate) fn counts(&self, taken: usize, total: usize) -> bool {
        let share = |steps: usize| steps as f64 / total as f64;
        self.conditioning_scale != 0.0 && share(taken) >= self.start && share(taken + 1) <= self.end
    }
}
