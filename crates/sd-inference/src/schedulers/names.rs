//! The names that requests and configuration files use.

use std::fmt;
use std::str::FromStr;

use super::SchedulerError;

/// An enum whose variants have names: `ALL`, `name`, `Display` and `FromStr` from one list.
macro_rules! names {
    ($(#[$meta:meta])* $type:ident, $field:literal: $($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $type { $($(#[$doc])* $variant,)+ }

        impl $type {
            /// Every one of them, in the order in which help texts list them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in requests, flags and configuration files.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $type {
            type Err = SchedulerError;

            fn from_str(value: &str) -> Result<Self, Self::Err> {
                let allowed = || [$($name),+].join(", ");
                Self::ALL.iter().copied().find(|known| known.name() == value).ok_or_else(|| {
                    SchedulerError::UnknownName { field: $field, value: value.to_owned(), allowed: allowed() }
                })
            }
        }
    };
}

names! {
    /// The update rule.
    Sampler, "sampler":
    /// Euler steps on the probability-flow ODE (Karras et al. 2022, algorithm 2 without churn).
    Euler = "euler",
    /// Ancestral sampling with Euler steps: fresh noise after each step (k-diffusion).
    EulerA = "euler_a",
    /// Denoising diffusion implicit models (Song et al. 2020); `eta` mixes in fresh noise.
    Ddim = "ddim",
    /// DPM-Solver++ multistep, second order (Lu et al. 2022).
    Dpmpp2m = "dpmpp_2m",
    /// UniPC: predictor and corrector (Zhao et al. 2023).
    UniPc = "unipc",
}

names! {
    /// How the noise levels are spread between the highest and the lowest.
    Schedule, "schedule":
    /// The levels of the training timesteps, as the spacing selects them.
    Normal = "normal",
    /// Evenly spread in the seventh root of sigma (Karras et al. 2022, equation 5).
    Karras = "karras",
    /// Evenly spread in the logarithm of sigma.
    Exponential = "exponential",
}

names! {
    /// How inference steps are laid over the training timesteps (Lin et al. 2023, table 2).
    TimestepSpacing, "timestep_spacing":
    /// Both ends included.
    Linspace = "linspace",
    /// Multiples of a whole step from the lowest timestep up, plus `steps_offset`.
    Leading = "leading",
    /// From the highest timestep down.
    Trailing = "trailing",
}

names! {
    /// What the UNet's output means.
    PredictionType, "prediction_type":
    /// The noise in the sample.
    Epsilon = "epsilon",
    /// The clean sample.
    Sample = "sample",
    /// The velocity, alpha * noise - sigma * clean sample (Salimans and Ho 2022).
    VPrediction = "v_prediction",
}

names! {
    /// How betas grow over the training timesteps.
    BetaSchedule, "beta_schedule":
    /// Evenly.
    Linear = "linear",
    /// Evenly in their square root; all latent diffusion models.
    ScaledLinear = "scaled_linear",
    /// From a squared cosine of alpha, capped at 0.999 (Nichol and Dhariwal 2021).
    SquaredCosCapV2 = "squaredcos_cap_v2",
}

names! {
    /// The noise level after the last step.
    FinalSigmas, "final_sigmas_type":
    /// None at all.
    Zero = "zero",
    /// The lowest level of the training timesteps.
    SigmaMin = "sigma_min",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for sampler in Sampler::ALL {
            assert_eq!(sampler.to_string().parse::<Sampler>().unwrap(), *sampler);
        }
        for schedule in Schedule::ALL {
            assert_eq!(schedule.to_string().parse::<Schedule>().unwrap(), *schedule);
        }
    }

    #[test]
    fn an_unknown_name_says_which_exist() {
        let message = "dpm".parse::<Sampler>().unwrap_err().to_string();
        assert_eq!(
            message,
            "sampler \"dpm\" is unknown; choose one of euler, euler_a, ddim, dpmpp_2m, unipc"
        );
    }
}
