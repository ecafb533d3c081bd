//! The noise schedule that a model was trained with.

use super::{BetaSchedule, Result, SchedulerError};

/// The share of signal, or a tiny one where there is none and a division by it follows: the smallest subnormal f16,
/// as in the reference.
pub(super) fn some_signal(alpha: f32) -> f32 {
    if alpha > 0.0 { alpha } else { 1.0 / (1 << 24) as f32 }
}

/// Where betas come from.
#[derive(Clone, Debug)]
pub(super) struct BetaSource<'a> {
    pub(super) count: usize,
    pub(super) start: f64,
    pub(super) end: f64,
    pub(super) schedule: BetaSchedule,
    pub(super) trained: Option<&'a [f32]>,
    pub(super) zero_terminal_snr: bool,
}

impl BetaSource<'_> {
    /// The share of signal in the squared sample at each training timestep, falling from nearly 1.
    ///
    /// As in torch: everything is f32, except that the running product is kept in f64 and rounded at each element.
    pub(super) fn alphas_cumprod(&self) -> Result<Vec<f32>> {
        self.check()?;
        let mut betas = self.betas();
        if self.zero_terminal_snr {
            betas = rescale_zero_terminal_snr(&betas);
        }
        match betas.iter().all(|beta| is_beta(*beta)) {
            true => Ok(cumulative_product(&betas)),
            // Betas so small that f32 sees no noise in them.
            false => Err(SchedulerError::OutOfRange {
                field: "rescale_betas_zero_snr",
                value: "true".to_owned(),
                limit: "false, as the betas are too small to be rescaled",
            }),
        }
    }

    /// Checks what the configuration says, and tells it as it stands there.
    fn check(&self) -> Result<()> {
        let limit = "more than 0 and at most 1";
        let out_of_range = |field, value| Err(SchedulerError::OutOfRange { field, value, limit });
        if let Some(trained) = self.trained {
            let beyond = trained.iter().find(|beta| !is_beta(**beta));
            return beyond
                .map_or(Ok(()), |beta| out_of_range("trained_betas", format!("a list with {beta}")));
        }
        if self.schedule == BetaSchedule::SquaredCosCapV2 {
            return Ok(());
        }
        for (field, value) in [("beta_start", self.start), ("beta_end", self.end)] {
            if !is_beta(value as f32) {
                return out_of_range(field, value.to_string());
            }
        }
        Ok(())
    }

    fn betas(&self) -> Vec<f32> {
        if let Some(trained) = self.trained {
            return trained.to_vec();
        }
        match self.schedule {
            BetaSchedule::Linear => torch_linspace(self.start, self.end, self.count),
            BetaSchedule::ScaledLinear => {
                let roots = torch_linspace(self.start.sqrt(), self.end.sqrt(), self.count);
                roots.into_iter().map(|root| root * root).collect()
            }
            BetaSchedule::SquaredCosCapV2 => squared_cosine(self.count),
        }
    }
}

/// Whether it is the share of noise that one timestep may add.
fn is_beta(beta: f32) -> bool {
    beta > 0.0 && beta <= 1.0
}

/// `torch.linspace` in f32: counted from both ends, product and sum rounded once.
fn torch_linspace(start: f64, end: f64, count: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    if count < 2 {
        return vec![start; count];
    }
    let step = (end - start) / (count - 1) as f32;
    let value = |i: usize| {
        if i < count / 2 {
            step.mul_add(i as f32, start)
        } else {
            (-step).mul_add((count - 1 - i) as f32, end)
        }
    };
    (0..count).map(value).collect()
}

/// Betas whose alphas follow a squared cosine, none above 0.999 (`betas_for_alpha_bar`).
fn squared_cosine(count: usize) -> Vec<f32> {
    let alpha_bar = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::PI / 2.0).cos().powi(2);
    let at = |i: usize| alpha_bar(i as f64 / count as f64);
    (0..count).map(|i| (1.0 - at(i + 1) / at(i)).min(0.999) as f32).collect()
}

fn cumulative_product(betas: &[f32]) -> Vec<f32> {
    let mut product = 1f64;
    let next = |beta: &f32| {
        product *= f64::from(1.0 - beta);
        product as f32
    };
    betas.iter().map(next).collect()
}

/// Betas shifted and scaled so that nothing of the signal is left at the end (Lin et al. 2023, algorithm 1).
fn rescale_zero_terminal_snr(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = cumulative_product(betas).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else { return Vec::new() };
    let scale = first / (first - last);
    let bars: Vec<f32> = roots.iter().map(|root| (root - last) * scale).map(|root| root * root).collect();
    let mut before = 1.0;
    let beta = |bar: f32| 1.0 - bar / std::mem::replace(&mut before, bar);
    bars.into_iter().map(beta).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SD: BetaSource<'static> = BetaSource {
        count: 1000,
        start: 0.00085,
        end: 0.012,
        schedule: BetaSchedule::ScaledLinear,
        trained: None,
        zero_terminal_snr: false,
    };

    #[test]
    fn alphas_fall_from_one_towards_zero_in_every_schedule() {
        for schedule in BetaSchedule::ALL {
            let alphas = BetaSource { schedule: *schedule, ..SD }.alphas_cumprod().unwrap();
            assert_eq!(alphas.len(), 1000);
            assert!(alphas.windows(2).all(|pair| pair[1] < pair[0]), "{schedule}");
            assert!(alphas[0] > 0.99 && alphas[999] > 0.0);
        }
    }

    #[test]
    fn zero_terminal_snr_keeps_the_first_alpha_and_ends_at_zero() {
        let plain = SD.alphas_cumprod().unwrap();
        let rescaled = BetaSource { zero_terminal_snr: true, ..SD }.alphas_cumprod().unwrap();
        assert!((plain[0] - rescaled[0]).abs() < 1e-6);
        assert_eq!(rescaled[999], 0.0);
    }

    #[test]
    fn a_beta_outside_its_range_is_told_as_it_was_given() {
        let message = |source: BetaSource<'_>| source.alphas_cumprod().unwrap_err().to_string();
        let limit = "but must be more than 0 and at most 1";
        for (end, told) in [(1.5, "1.5"), (2.0, "2"), (-1.0, "-1"), (0.0, "0"), (f64::NAN, "NaN")] {
            for schedule in [BetaSchedule::Linear, BetaSchedule::ScaledLinear] {
                let source = BetaSource { schedule, ..SD };
                let (start, end) =
                    (BetaSource { start: end, ..source.clone() }, BetaSource { end, ..source });
                assert_eq!(message(start), format!("beta_start is {told}, {limit}"));
                assert_eq!(message(end), format!("beta_end is {told}, {limit}"));
            }
        }
        let trained = BetaSource { count: 2, trained: Some(&[0.5, 2.5]), ..SD };
        assert_eq!(message(trained), format!("trained_betas is a list with 2.5, {limit}"));
        let unused = BetaSource { start: -1.0, schedule: BetaSchedule::SquaredCosCapV2, ..SD };
        assert!(unused.alphas_cumprod().is_ok());
        let tiny = BetaSource { start: 1e-12, end: 1e-12, zero_terminal_snr: true, ..SD };
        assert!(message(tiny).starts_with("rescale_betas_zero_snr is true"));
    }
}
