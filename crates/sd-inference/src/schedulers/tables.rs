//! Timesteps and noise levels of a run, as the reference's `set_timesteps` computes them with numpy.

use super::TimestepSpacing;

/// The exponent of Karras' schedule.
const RHO: f64 = 7.0;

/// Training timesteps for `steps` steps, highest first, of samplers that visit the lowest one too (`euler`,
/// `euler_a`, `ddim`). With linspace they are not whole yet.
pub(super) fn spaced(spacing: TimestepSpacing, train: usize, steps: usize, offset: usize) -> Vec<f64> {
    match spacing {
        TimestepSpacing::Linspace => reversed(linspace(0.0, (train - 1) as f64, steps)),
        TimestepSpacing::Leading => {
            let ratio = train / steps;
            (0..steps).rev().map(|i| (i * ratio + offset) as f64).collect()
        }
        TimestepSpacing::Trailing => trailing(train, steps),
    }
}

/// Training timesteps for `steps` steps, highest first, of multistep solvers (`dpmpp_2m`, `unipc`): one more is laid
/// out, and the lowest is left to the end of the last step. `last` is the number of timesteps in use.
pub(super) fn spaced_multistep(
    spacing: TimestepSpacing,
    last: usize,
    steps: usize,
    offset: usize,
) -> Vec<f64> {
    let mut timesteps: Vec<f64> = match spacing {
        TimestepSpacing::Linspace => reversed(linspace(0.0, (last - 1) as f64, steps + 1))
            .into_iter()
            .map(f64::round_ties_even)
            .collect(),
        TimestepSpacing::Leading => {
            let ratio = last / (steps + 1);
            (0..=steps).rev().map(|i| (i * ratio + offset) as f64).collect()
        }
        TimestepSpacing::Trailing => trailing(last, steps),
    };
    timesteps.truncate(steps);
    timesteps
}

/// From the highest timestep down. `np.arange` adds the difference of its first two values over and over; where its
/// rounding would give one value too many (61 steps of 1000, say, and a timestep of -1), there are `steps` here.
fn trailing(train: usize, steps: usize) -> Vec<f64> {
    let start = train as f64;
    let delta = (start - start / steps as f64) - start;
    (0..steps).map(|i| (start + i as f64 * delta).round_ties_even() - 1.0).collect()
}

/// `np.linspace` with both ends.
pub(super) fn linspace(start: f64, stop: f64, count: usize) -> Vec<f64> {
    let step = (stop - start) / count.saturating_sub(1).max(1) as f64;
    let value = |i: usize| if i > 0 && i + 1 == count { stop } else { i as f64 * step + start };
    (0..count).map(value).collect()
}

fn reversed(mut values: Vec<f64>) -> Vec<f64> {
    values.reverse();
    values
}

/// The noise level at which the squared sample has this share of signal.
pub(super) fn sigma_of(alpha: f32) -> f32 {
    ((1.0 - alpha) / alpha).sqrt()
}

/// `np.interp` over whole timesteps: the value at any timestep, the end values outside.
pub(super) fn value_at(timestep: f64, values: &[f32]) -> f64 {
    let last = values.len() - 1;
    let below = (timestep.max(0.0) as usize).min(last);
    let low = f64::from(values[below]);
    if below == last || timestep <= 0.0 {
        return low;
    }
    (f64::from(values[below + 1]) - low) * (timestep - below as f64) + low
}

/// The noise level at any timestep, by interpolation of logarithms; the end levels outside.
pub(super) fn log_value_at(timestep: f64, log_sigmas: &[f32]) -> f64 {
    value_at(timestep, log_sigmas).exp()
}

/// The timestep of a noise level, by interpolation of logarithms (`_sigma_to_t`).
pub(super) fn timestep_of(sigma: f64, log_sigmas: &[f32]) -> f64 {
    let log_sigma = sigma.max(1e-10).ln();
    let reached = log_sigmas.partition_point(|level| f64::from(*level) <= log_sigma);
    let low = reached.saturating_sub(1).min(log_sigmas.len().saturating_sub(2));
    let high = (low + 1).min(log_sigmas.len() - 1);
    let width = f64::from(log_sigmas[low] - log_sigmas[high]);
    let share = ((f64::from(log_sigmas[low]) - log_sigma) / width).clamp(0.0, 1.0);
    (1.0 - share) * low as f64 + share * high as f64
}

/// Karras' noise levels (Karras et al. 2022, equation 5), falling.
pub(super) fn karras(lowest: f64, highest: f64, steps: usize) -> Vec<f64> {
    let (low, high) = (lowest.powf(1.0 / RHO), highest.powf(1.0 / RHO));
    linspace(0.0, 1.0, steps).into_iter().map(|ramp| (high + ramp * (low - high)).powf(RHO)).collect()
}

/// Noise levels evenly spread in their logarithm, falling.
pub(super) fn exponential(lowest: f64, highest: f64, steps: usize) -> Vec<f64> {
    linspace(highest.ln(), lowest.ln(), steps).into_iter().map(f64::exp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // np.linspace(0, 999, 5)[::-1]; (np.arange(0, 5) * 200)[::-1] + 1; np.arange(1000, 0, -200).round() - 1
    #[test]
    fn five_steps_lie_where_numpy_puts_them() {
        assert_eq!(spaced(TimestepSpacing::Linspace, 1000, 5, 1), [999.0, 749.25, 499.5, 249.75, 0.0]);
        assert_eq!(spaced(TimestepSpacing::Leading, 1000, 5, 1), [801.0, 601.0, 401.0, 201.0, 1.0]);
        assert_eq!(spaced(TimestepSpacing::Trailing, 1000, 5, 1), [999.0, 799.0, 599.0, 399.0, 199.0]);
        assert_eq!(
            spaced_multistep(TimestepSpacing::Linspace, 1000, 5, 1),
            [999.0, 799.0, 599.0, 400.0, 200.0]
        );
        assert_eq!(
            spaced_multistep(TimestepSpacing::Leading, 1000, 5, 1),
            [831.0, 665.0, 499.0, 333.0, 167.0]
        );
    }

    #[test]
    fn trailing_gives_as_many_as_asked_where_arange_gives_one_more() {
        for steps in [61, 103, 121, 122] {
            let timesteps = spaced(TimestepSpacing::Trailing, 1000, steps, 0);
            assert_eq!(timesteps.len(), steps);
            assert!(timesteps.iter().all(|t| *t >= 0.0));
        }
    }

    #[test]
    fn a_level_finds_back_to_its_timestep() {
        let sigmas: Vec<f32> = (1..=100).map(|i| i as f32 * 0.1).collect();
        let logs: Vec<f32> = sigmas.iter().map(|s| s.ln()).collect();
        for t in [0.0, 17.0, 98.0, 99.0] {
            assert!((timestep_of(value_at(t, &sigmas), &logs) - t).abs() < 1e-4);
        }
        assert_eq!(timestep_of(1e9, &logs), 99.0);
        assert_eq!(timestep_of(0.0, &logs), 0.0);
    }

    #[test]
    fn other_schedules_keep_both_ends() {
        for levels in [karras(0.03, 14.6, 9), exponential(0.03, 14.6, 9)] {
            assert!((levels[0] - 14.6).abs() < 1e-9 && (levels[8] - 0.03).abs() < 1e-9);
            assert!(levels.windows(2).all(|pair| pair[1] < pair[0]));
        }
    }
}
