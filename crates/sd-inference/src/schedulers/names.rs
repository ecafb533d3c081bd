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
    /// Pseudo linear multistep, fourth order (Liu et al. 2022); SD 1.5's own.
    Pndm = "pndm",
    /// The ancestral chain of the training (Ho et al. 2020).
    Ddpm = "ddpm",
    /// Heun's second-order steps (Karras et al. 2022, algorithm 1).
    Heun = "heun",
    /// Midpoint steps in the logarithm of sigma (k-diffusion's DPM-Solver-2).
    Dpm2 = "dpm2",
    /// The same, ancestral.
    Dpm2A = "dpm2_a",
    /// Linear multistep, fourth order (k-diffusion).
    Lms = "lms",
    /// DPM-Solver++ multistep for the reverse SDE, second order.
    Dpmpp2mSde = "dpmpp_2m_sde",
    /// DPM-Solver++ for the reverse SDE, single step of second order (k-diffusion).
    DpmppSde = "dpmpp_sde",
    /// DPM-Solver++ single step of second order, ancestral (k-diffusion).
    Dpmpp2sA = "dpmpp_2s_a",
    /// DPM-Solver++ multistep for the reverse SDE, third order (k-diffusion).
    Dpmpp3mSde = "dpmpp_3m_sde",
    /// DEIS multistep (Zhang and Chen 2022).
    Deis = "deis",
    /// For latent consistency models (Luo et al. 2023).
    Lcm = "lcm",
    /// For trajectory consistency models (Zheng et al. 2024).
    Tcd = "tcd",
}

impl Sampler {
    /// How often it asks the UNet in each step but the last, where once is enough. `pndm` asks once more in all.
    pub fn evaluations(self) -> usize {
        match self {
            Self::Heun | Self::Dpm2 | Self::Dpm2A | Self::DpmppSde | Self::Dpmpp2sA => 2,
            _ => 1,
        }
    }

    /// Whether it draws fresh noise between steps (`ddim` and `tcd` only with an eta above 0).
    pub fn draws_noise(self) -> bool {
        match self {
            Self::EulerA | Self::Ddpm | Self::Dpm2A | Self::Lcm => true,
            Self::Dpmpp2mSde | Self::DpmppSde | Self::Dpmpp2sA | Self::Dpmpp3mSde => true,
            _ => self.takes_eta(),
        }
    }

    /// Whether `eta` means something to it.
    pub fn takes_eta(self) -> bool {
        matches!(self, Self::Ddim | Self::Tcd | Self::Dpmpp2sA | Self::Dpmpp3mSde)
    }
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
    /// Quantiles of a beta distribution with both parameters 0.6, denser at both ends (Lee et al. 2024).
    Beta = "beta",
    /// The levels of evenly spread timesteps, both ends of the training's included, the last left to the end of the run;
    /// between two timesteps by logarithms (Stability's generative-models, ComfyUI).
    SgmUniform = "sgm_uniform",
    /// Every so many-th level of the training, from the highest (ComfyUI).
    Simple = "simple",
    /// Every so many-th level of the training, from the second lowest up (the original DDIM, ComfyUI).
    DdimUniform = "ddim_uniform",
    /// The published levels for ten steps, other numbers by log-linear interpolation (Sabour et al. 2024, table 3).
    AlignYourSteps = "align_your_steps",
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
            "sampler \"dpm\" is unknown; choose one of euler, euler_a, ddim, dpmpp_2m, unipc, pndm, ddpm, heun, \
             dpm2, dpm2_a, lms, dpmpp_2m_sde, dpmpp_sde, dpmpp_2s_a, dpmpp_3m_sde, deis, lcm, tcd"
        );
    }
}
