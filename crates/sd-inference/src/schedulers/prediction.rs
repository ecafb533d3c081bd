//! From what the UNet answers to the clean sample that it means.

use candle_core::Tensor;

use super::{PredictionType, Result, SchedulerConfig};

/// `tensor * factor`, with the factor rounded to f32 as a torch scalar is.
pub(super) fn scaled(tensor: &Tensor, factor: f32) -> Result<Tensor> {
    Ok(tensor.affine(f64::from(factor), 0.0)?)
}

/// `tensor / divisor`, truly divided as torch does: the product with a rounded reciprocal has other last bits, and
/// where the noise level is high (4096 with zero terminal SNR) they show.
pub(super) fn divided(tensor: &Tensor, divisor: f32) -> Result<Tensor> {
    Ok(tensor.broadcast_div(&Tensor::new(divisor, tensor.device())?)?)
}

/// Signal and noise factors of a sample whose squares sum to 1, at this noise level (f32, as in the reference).
pub(super) fn alpha_sigma(sigma: f32) -> (f32, f32) {
    let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
    (alpha, sigma * alpha)
}

/// Half the logarithm of the signal-to-noise ratio: the time in which the multistep solvers think.
pub(super) fn lambda(sigma: f32) -> f32 {
    let (alpha, sigma) = alpha_sigma(sigma);
    alpha.ln() - sigma.ln()
}

/// The clean sample, where `sample` is variance preserving.
pub(super) fn clean_sample(
    prediction: PredictionType,
    model_output: &Tensor,
    sample: &Tensor,
    (alpha, sigma): (f32, f32),
) -> Result<Tensor> {
    match prediction {
        PredictionType::Epsilon => divided(&(sample - scaled(model_output, sigma)?)?, alpha),
        PredictionType::Sample => Ok(model_output.clone()),
        PredictionType::VPrediction => Ok((scaled(sample, alpha)? - scaled(model_output, sigma)?)?),
    }
}

/// The clean sample, where `sample` is an unscaled signal with noise of deviation `sigma`.
pub(super) fn clean_unscaled(
    prediction: PredictionType,
    model_output: &Tensor,
    sample: &Tensor,
    sigma: f32,
) -> Result<Tensor> {
    match prediction {
        PredictionType::Epsilon => Ok((sample - scaled(model_output, sigma)?)?),
        PredictionType::Sample => Ok(model_output.clone()),
        PredictionType::VPrediction => {
            let square = sigma * sigma + 1.0;
            Ok((scaled(model_output, -sigma / square.sqrt())? + divided(sample, square)?)?)
        }
    }
}

/// The noise, where `sample` is variance preserving.
pub(super) fn epsilon(
    prediction: PredictionType,
    model_output: &Tensor,
    sample: &Tensor,
    (alpha, sigma): (f32, f32),
) -> Result<Tensor> {
    match prediction {
        PredictionType::Epsilon => Ok(model_output.clone()),
        PredictionType::Sample => divided(&(sample - scaled(model_output, alpha)?)?, sigma),
        PredictionType::VPrediction => Ok((scaled(model_output, alpha)? + scaled(sample, sigma)?)?),
    }
}

/// What happens to the clean sample before it is used.
pub(super) enum Clip {
    Never,
    At(f64),
    Dynamic(Thresholding),
}

impl Clip {
    /// As the configuration says; `default` is whether it is clipped where that says nothing.
    pub(super) fn new(config: &SchedulerConfig, default: bool) -> Self {
        if let Some(thresholding) = Thresholding::of(config) {
            Self::Dynamic(thresholding)
        } else if config.clip_sample.unwrap_or(default) {
            Self::At(config.clip_sample_range.unwrap_or(1.0))
        } else {
            Self::Never
        }
    }

    pub(super) fn apply(&self, clean: Tensor) -> Result<Tensor> {
        match self {
            Self::Never => Ok(clean),
            Self::At(range) => Ok(clean.clamp(-*range, *range)?),
            Self::Dynamic(thresholding) => thresholding.apply(&clean),
        }
    }
}

/// Dynamic thresholding (Saharia et al. 2022): each image is clipped at a high quantile of its magnitudes and scaled
/// back to [-1, 1]. For pixel-space models; a latent must not be treated so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Thresholding {
    pub(super) ratio: f64,
    pub(super) max: f64,
}

impl Thresholding {
    /// If the configuration wants it.
    pub(super) fn of(config: &SchedulerConfig) -> Option<Self> {
        config.thresholding.unwrap_or(false).then(|| Self {
            ratio: config.dynamic_thresholding_ratio.unwrap_or(0.995).clamp(0.0, 1.0),
            max: config.sample_max_value.unwrap_or(1.0),
        })
    }

    pub(super) fn apply(&self, sample: &Tensor) -> Result<Tensor> {
        let flat = sample.flatten_from(1)?;
        let rows = flat.abs()?.to_vec2::<f32>()?;
        let limits: Vec<f32> = rows.into_iter().map(|row| self.limit(row)).collect();
        let limits = Tensor::from_vec(limits, (flat.dim(0)?, 1), sample.device())?;
        let clipped = flat.broadcast_minimum(&limits)?.broadcast_maximum(&limits.neg()?)?;
        Ok(clipped.broadcast_div(&limits)?.reshape(sample.shape())?)
    }

    /// `torch.quantile` with linear interpolation, at least 1 and at most `max`.
    fn limit(&self, mut magnitudes: Vec<f32>) -> f32 {
        magnitudes.sort_by(f32::total_cmp);
        let Some(last) = magnitudes.len().checked_sub(1) else { return 1.0 };
        let rank = self.ratio * last as f64;
        let (low, high) = (magnitudes[rank.floor() as usize], magnitudes[(rank.ceil() as usize).min(last)]);
        let quantile = low + (high - low) * rank.fract() as f32;
        quantile.max(1.0).min(self.max as f32)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn every_prediction_type_finds_the_same_clean_sample() -> Result<()> {
        let clean = Tensor::new(&[0.3f32, -1.2, 0.7], &Device::Cpu)?;
        let noise = Tensor::new(&[1.1f32, 0.2, -0.5], &Device::Cpu)?;
        let (alpha, sigma) = alpha_sigma(1.7);
        let sample = (scaled(&clean, alpha)? + scaled(&noise, sigma)?)?;
        let velocity = (scaled(&noise, alpha)? - scaled(&clean, sigma)?)?;
        for (prediction, output) in [
            (PredictionType::Epsilon, &noise),
            (PredictionType::Sample, &clean),
            (PredictionType::VPrediction, &velocity),
        ] {
            let found = clean_sample(prediction, output, &sample, (alpha, sigma))?.to_vec1::<f32>()?;
            for (found, wanted) in found.iter().zip([0.3, -1.2, 0.7]) {
                assert!((found - wanted).abs() < 1e-6, "{prediction}: {found} is not {wanted}");
            }
        }
        Ok(())
    }

    // torch.quantile(torch.tensor([0., 1., 2., 3., 4.]), 0.9) = 3.6
    #[test]
    fn thresholding_clips_at_the_quantile_and_rescales() -> Result<()> {
        let sample = Tensor::new(&[[0f32, -1.0, 2.0, -3.0, 4.0], [0.1, 0.2, 0.3, 0.4, 0.5]], &Device::Cpu)?;
        let clipped = Thresholding { ratio: 0.9, max: 10.0 }.apply(&sample)?.to_vec2::<f32>()?;
        assert!((clipped[0][3] + 3.0 / 3.6).abs() < 1e-6 && (clipped[0][4] - 1.0).abs() < 1e-6);
        assert_eq!(clipped[1], [0.1, 0.2, 0.3, 0.4, 0.5]);
        Ok(())
    }
}
