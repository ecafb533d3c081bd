//! Classifier-free guidance: how the UNet's answers with and without the prompt become one.

use candle_core::{D, Tensor};

use crate::{Error, GenerationRequest, PipelineInfo, Result};

/// The part of a run in which guidance counts (Kynkäänniemi and others, 2024). Outside it the UNet is asked with the
/// prompt alone, which takes half of the work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuidanceInterval {
    /// From this share of the run on, 0 to 1.
    pub start: f64,
    /// Up to this share of the run, 0 to 1.
    pub end: f64,
}

/// What a request says of guidance, checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guidance {
    pub(crate) scale: f64,
    /// Whether the UNet takes the scale as a condition, so that it need not be asked without the prompt.
    pub(crate) distilled: bool,
    rescale: f64,
    interval: Option<GuidanceInterval>,
}

impl Guidance {
    /// # Errors
    /// [`Error::InvalidRequest`] for numbers that mean nothing.
    pub(crate) fn new(request: &GenerationRequest, info: &PipelineInfo) -> Result<Self> {
        Self::checked(request, info.default_guidance_scale, info.guidance_embedding)
    }

    fn checked(request: &GenerationRequest, default_scale: f64, distilled: bool) -> Result<Self> {
        let scale = request.guidance_scale.unwrap_or(default_scale);
        let invalid = |field, value: String, limit: &str| {
            Err(Error::InvalidRequest { field, value, limit: limit.to_owned() })
        };
        if !scale.is_finite() {
            return invalid("guidance_scale", scale.to_string(), "a finite number");
        }
        let rescale = request.guidance_rescale;
        if !(0.0..=1.0).contains(&rescale) {
            return invalid("guidance_rescale", rescale.to_string(), "a number from 0 to 1");
        }
        if let Some(GuidanceInterval { start, end }) = request.guidance_interval
            && !(0.0 <= start && start < end && end <= 1.0)
        {
            let limit = "a start and a later end, both from 0 to 1";
            return invalid("guidance_interval", format!("{start} to {end}"), limit);
        }
        Ok(Self { scale, distilled, rescale, interval: request.guidance_interval })
    }

    /// Whether the UNet is to be asked without the prompt too.
    pub(crate) fn is_wanted(&self) -> bool {
        self.scale > 1.0 && !self.distilled
    }

    /// Whether it counts at the evaluation `index` of `total`: the whole of it must lie in the interval.
    pub(crate) fn counts_at(&self, index: usize, total: usize) -> bool {
        let total = total as f64;
        let inside = |interval: GuidanceInterval| {
            index as f64 / total >= interval.start && (index + 1) as f64 / total <= interval.end
        };
        self.is_wanted() && self.interval.is_none_or(inside)
    }

    /// The guided answer from those without and with the prompt, `(images, channels, height, width)` each.
    pub(crate) fn combine(&self, without: &Tensor, with: &Tensor) -> Result<Tensor> {
        let guided = (without + ((with - without)? * self.scale)?)?;
        if self.rescale == 0.0 {
            return Ok(guided);
        }
        // Lin and others (2024), section 3.4; the reference's `rescale_noise_cfg`.
        let ratio = deviations(with)?.div(&deviations(&guided)?)?;
        let rescaled = guided.broadcast_mul(&ratio)?;
        Ok(((rescaled * self.rescale)? + (guided * (1.0 - self.rescale))?)?)
    }
}

/// The standard deviation of each sample's numbers, `(images, 1, 1, 1)`.
fn deviations(samples: &Tensor) -> Result<Tensor> {
    let flat = samples.flatten_from(1)?;
    let deviations = flat.var_keepdim(D::Minus1)?.sqrt()?;
    Ok(deviations.reshape((flat.dim(0)?, 1, 1, 1))?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn guidance(change: impl FnOnce(&mut GenerationRequest)) -> Result<Guidance> {
        let mut request = GenerationRequest::new("x");
        change(&mut request);
        Guidance::checked(&request, 7.5, false)
    }

    /// ```python
    /// t = torch.tensor([1., 2., 4., 8., 0., 0., 1., 3.]).reshape(2, 1, 2, 2)
    /// u = torch.tensor([0., 1., 1., 2., 1., 0., 2., 2.]).reshape(2, 1, 2, 2)
    /// rescale_noise_cfg(u + 3 * (t - u), t, 0.7)
    /// ```
    #[test]
    fn rescaling_is_the_references() {
        let tensor =
            |values: [f32; 8]| Tensor::new(&values, &Device::Cpu).unwrap().reshape((2, 1, 2, 2)).unwrap();
        let with = tensor([1.0, 2.0, 4.0, 8.0, 0.0, 0.0, 1.0, 3.0]);
        let without = tensor([0.0, 1.0, 1.0, 2.0, 1.0, 0.0, 2.0, 2.0]);
        let guidance = guidance(|request| {
            request.guidance_scale = Some(3.0);
            request.guidance_rescale = 0.7;
        });
        let found = guidance.unwrap().combine(&without, &with).unwrap();
        let found = found.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let wanted = [1.732932, 2.310576, 5.7764397, 11.552879, -1.2368023, 0.0, -0.6184012, 3.0920057];
        for (found, wanted) in found.iter().zip(wanted) {
            assert!((found - wanted).abs() < 1e-5, "{found}, not {wanted}");
        }
    }

    #[test]
    fn an_evaluation_is_guided_where_all_of_it_lies_in_the_interval() {
        let guided = |start, end| -> Vec<usize> {
            let interval = Some(GuidanceInterval { start, end });
            let guidance = guidance(|request| request.guidance_interval = interval).unwrap();
            (0..10).filter(|index| guidance.counts_at(*index, 10)).collect()
        };
        assert_eq!(guided(0.0, 1.0), (0..10).collect::<Vec<_>>());
        assert_eq!(guided(0.2, 0.5), [2, 3, 4]);
        assert_eq!(guided(0.25, 0.55), [3, 4]);
        assert_eq!(guided(0.0, 0.05), [0usize; 0]);
    }

    #[test]
    fn a_distilled_model_is_asked_once() {
        let guidance = Guidance::checked(&GenerationRequest::new("x"), 7.5, true).unwrap();
        assert!(!guidance.is_wanted() && !guidance.counts_at(0, 4));
    }

    #[test]
    fn no_scale_no_guidance() {
        let guidance = guidance(|request| request.guidance_scale = Some(1.0)).unwrap();
        assert!(!guidance.is_wanted() && !guidance.counts_at(0, 4));
    }

    #[test]
    fn numbers_that_mean_nothing_are_refused_by_field() {
        for (field, result) in [
            ("guidance_scale", guidance(|request| request.guidance_scale = Some(f64::NAN))),
            ("guidance_rescale", guidance(|request| request.guidance_rescale = 1.5)),
            ("guidance_rescale", guidance(|request| request.guidance_rescale = f64::NAN)),
            (
                "guidance_interval",
                guidance(|request| {
                    request.guidance_interval = Some(GuidanceInterval { start: 0.6, end: 0.6 });
                }),
            ),
            (
                "guidance_interval",
                guidance(|request| {
                    request.guidance_interval = Some(GuidanceInterval { start: -0.1, end: 0.6 });
                }),
            ),
        ] {
            assert!(result.unwrap_err().to_string().contains(field), "{field}");
        }
    }
}
