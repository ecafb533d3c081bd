//! The schedules beside the normal one: which levels, or which timesteps, a run visits.

use statrs::function::beta::inv_beta_reg;

use super::tables::{linspace, log_value_at, timestep_of};

/// Both parameters of the beta distribution (Lee et al. 2024, "Beta sampling is all you need").
const BETA_SHAPE: f64 = 0.6;

/// What a schedule is defined by.
pub(super) enum Spread {
    /// Noise levels, falling.
    Sigmas(Vec<f64>),
    /// Training timesteps, falling; fractions are possible.
    Timesteps(Vec<f64>),
}

impl Spread {
    /// Timesteps and noise levels. What the schedule does not say follows from the other by logarithms.
    pub(super) fn levels(self, training: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let logs: Vec<f32> = training.iter().map(|sigma| sigma.ln()).collect();
        match self {
            Self::Sigmas(sigmas) => (sigmas.iter().map(|sigma| timestep_of(*sigma, &logs)).collect(), sigmas),
            Self::Timesteps(timesteps) => {
                let sigmas = timesteps.iter().map(|t| log_value_at(*t, &logs)).collect();
                (timesteps, sigmas)
            }
        }
    }
}

/// Levels at the quantiles of a beta distribution: dense at both ends (diffusers' `use_beta_sigmas`).
pub(super) fn beta(lowest: f64, highest: f64, steps: usize) -> Vec<f64> {
    let quantile = |share: f64| inv_beta_reg(BETA_SHAPE, BETA_SHAPE, 1.0 - share);
    let shares = linspace(0.0, 1.0, steps).into_iter();
    shares.map(|share| lowest + quantile(share) * (highest - lowest)).collect()
}

/// Evenly from the last training timestep to the first, which is left out (`normal_scheduler` of ComfyUI with `sgm`).
pub(super) fn sgm_uniform(train: usize, steps: usize) -> Vec<f64> {
    let mut timesteps = linspace((train - 1) as f64, 0.0, steps + 1);
    timesteps.truncate(steps);
    timesteps
}

/// From the last training timestep down by the same share of all, rounded up (`simple_scheduler` of ComfyUI).
pub(super) fn simple(train: usize, steps: usize) -> Vec<f64> {
    let stride = train as f64 / steps as f64;
    (0..steps).map(|i| (train - 1 - (i as f64 * stride) as usize) as f64).collect()
}

/// From training timestep 1 up by whole strides (`ddim_scheduler` of ComfyUI, as in the original DDIM). Where the
/// division leaves a rest, both take one step more than was asked for: the noisiest, which is left out here.
pub(super) fn ddim_uniform(train: usize, steps: usize) -> Vec<f64> {
    let stride = train / steps;
    (0..steps).rev().map(|i| (1 + i * stride) as f64).collect()
}

/// Whose published levels `align_your_steps` goes by (Sabour et al. 2024, table 3). SD 2.x takes those of SD 1.5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AlignedSteps {
    /// Stable Diffusion 1.5.
    #[default]
    Sd15,
    /// SDXL.
    Sdxl,
}

impl AlignedSteps {
    /// Ten steps, and the level after them.
    fn published(self) -> [f64; 11] {
        match self {
            Self::Sd15 => [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029],
            Self::Sdxl => [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029],
        }
    }

    /// The levels of so many steps: the published ones, laid out anew along their logarithms. The one after the last
    /// step is left out, because a run ends without noise.
    pub(super) fn sigmas(self, steps: usize) -> Vec<f64> {
        let logs = self.published().map(f64::ln);
        let at = |place: f64| {
            let below = (place as usize).min(logs.len() - 2);
            (logs[below] + (logs[below + 1] - logs[below]) * (place - below as f64)).exp()
        };
        let mut sigmas: Vec<f64> =
            linspace(0.0, (logs.len() - 1) as f64, steps + 1).into_iter().map(at).collect();
        sigmas.truncate(steps);
        sigmas
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: &[f64], wanted: &[f64], tolerance: f64) {
        assert_eq!(found.len(), wanted.len());
        for (found, wanted) in found.iter().zip(wanted) {
            assert!((found - wanted).abs() <= tolerance, "{found}, not {wanted}");
        }
    }

    // scipy.stats.beta.ppf(1 - np.linspace(0, 1, 5), 0.6, 0.6)
    #[test]
    fn beta_quantiles_are_scipys() {
        close(&beta(0.0, 1.0, 5), &[1.0, 0.824319621347305, 0.5, 0.175680378652695, 0.0], 1e-12);
    }

    #[test]
    fn ten_aligned_steps_are_the_published_ones() {
        for table in [AlignedSteps::Sd15, AlignedSteps::Sdxl] {
            close(&table.sigmas(10), &table.published()[..10], 1e-12);
        }
        let sigmas = AlignedSteps::Sd15.sigmas(20);
        close(&sigmas[..3], &[14.615, (14.615f64 * 6.475).sqrt(), 6.475], 1e-12);
    }

    #[test]
    fn seven_steps_lie_where_comfyui_puts_them() {
        assert_eq!(simple(1000, 7), [999.0, 857.0, 714.0, 571.0, 428.0, 285.0, 142.0]);
        assert_eq!(ddim_uniform(1000, 7), [853.0, 711.0, 569.0, 427.0, 285.0, 143.0, 1.0]);
        assert_eq!(sgm_uniform(1000, 4), [999.0, 749.25, 499.5, 249.75]);
    }
}
