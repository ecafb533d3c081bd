//! The closed vocabularies: each value is one name on the wire, on the command line and in metadata.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A name that is not in the vocabulary; its message lists those that are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no {what}; known: {known}")]
pub struct UnknownName {
    what: &'static str,
    given: String,
    known: String,
}

/// Defines an enum whose variants have one name each: `ALL`, `as_str`, `Display`, `FromStr` and serde follow from it.
macro_rules! names {
    (
        $(#[$meta:meta])*
        $name:ident, $what:literal {
            $( $(#[$variant_meta:meta])* $variant:ident = $text:literal ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $name { $( $(#[$variant_meta])* $variant ),* }

        impl $name {
            /// Every value, in the order in which it is documented.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text).ok_or_else(|| UnknownName {
                    what: $what,
                    given: text.chars().take(80).collect(),
                    known: Self::ALL.iter().map(|value| value.as_str()).collect::<Vec<_>>().join(", "),
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let names: Vec<&str> = Self::ALL.iter().map(|value| value.as_str()).collect();
                schemars::json_schema!({"type": "string", "enum": names, "description": $what})
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

names! {
    /// What is made of a control image before a ControlNet sees it.
    Preprocessor, "preprocessor" {
        /// Nothing: it is a control image already.
        None = "none",
        /// Its edges, of one pixel's width, with thresholds 100 and 200.
        Canny = "canny",
        /// A depth map of 8 or 16 bits, near is bright: brought to the full range.
        Depth = "depth",
        /// A depth map of 8 or 16 bits, near is dark: brought to the full range and inverted.
        DepthInverted = "depth_inverted",
        /// Soft lines where its lightness changes.
        Lineart = "lineart",
    }
}

names! {
    /// What a job does: the value of the key `operation`.
    OperationKind, "operation" {
        /// Text to image.
        ImageGeneration = "image_generation",
        /// Image and text to image.
        ImageTransform = "image_transform",
        /// Repaints the white part of a mask.
        ImageInpaint = "image_inpaint",
        /// Enlarges a picture by a network of its own.
        ImageUpscale = "image_upscale",
    }
}

names! {
    /// The solver that walks from noise to image.
    Sampler, "sampler" {
        /// DDIM, deterministic.
        Ddim = "ddim",
        /// DDPM, the ancestral chain of the training.
        Ddpm = "ddpm",
        /// Pseudo-numerical (PNDM / PLMS).
        Pndm = "pndm",
        /// Euler.
        Euler = "euler",
        /// Euler, ancestral.
        EulerA = "euler_a",
        /// Heun, second order.
        Heun = "heun",
        /// DPM-Solver-2 of k-diffusion.
        Dpm2 = "dpm2",
        /// DPM-Solver-2 of k-diffusion, ancestral.
        Dpm2A = "dpm2_a",
        /// Linear multistep.
        Lms = "lms",
        /// DPM-Solver++ (2M).
        Dpmpp2m = "dpmpp_2m",
        /// DPM-Solver++ (2M), SDE.
        Dpmpp2mSde = "dpmpp_2m_sde",
        /// DPM-Solver++, SDE, single step.
        DpmppSde = "dpmpp_sde",
        /// DPM-Solver++ (2S), ancestral.
        Dpmpp2sA = "dpmpp_2s_a",
        /// DPM-Solver++ (3M), SDE.
        Dpmpp3mSde = "dpmpp_3m_sde",
        /// UniPC.
        Unipc = "unipc",
        /// DEIS.
        Deis = "deis",
        /// For latent consistency models.
        Lcm = "lcm",
        /// For trajectory consistency models.
        Tcd = "tcd",
        /// Euler for flow matching.
        FlowEuler = "flow_euler",
        /// Heun for flow matching.
        FlowHeun = "flow_heun",
    }
}

impl Sampler {
    /// Whether `eta` means something to it.
    pub const fn takes_eta(self) -> bool {
        matches!(self, Self::Ddim | Self::Tcd | Self::Dpmpp2sA | Self::Dpmpp3mSde)
    }
}

names! {
    /// How the noise levels are spread over the steps.
    Schedule, "schedule" {
        /// As the model was trained.
        Normal = "normal",
        /// Karras et al.
        Karras = "karras",
        /// Evenly spaced logarithms.
        Exponential = "exponential",
        /// Quantiles of a beta distribution.
        Beta = "beta",
        /// Uniform timesteps as Stability's generative-models repository spaces them.
        SgmUniform = "sgm_uniform",
        /// Evenly spaced entries of the model's table.
        Simple = "simple",
        /// The spacing of DDIM.
        DdimUniform = "ddim_uniform",
        /// The published tables of Align Your Steps.
        AlignYourSteps = "align_your_steps",
    }
}

names! {
    /// Where the noise comes from.
    RngKind, "rng" {
        /// The bits of `torch.Generator("cpu")`: the same seed gives the image that diffusers gives.
        TorchCpu = "torch_cpu",
        /// The bits of the CUDA generator.
        Philox = "philox",
    }
}

names! {
    /// The file format of the answer.
    ImageFormat, "image format" {
        /// Lossless, carries metadata.
        Png = "png",
        /// Lossy; `quality` applies.
        Jpeg = "jpeg",
        /// Lossless WebP.
        Webp = "webp",
    }
}

impl ImageFormat {
    /// The media type, as `Content-Type` has it.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }
}

names! {
    /// Which waiting job goes first; among equals, the one that came first.
    Priority, "priority" {
        /// After all others.
        Low = "low",
        /// The default.
        Normal = "normal",
        /// Before all others.
        High = "high",
    }
}

names! {
    /// How a sampler lays its steps over the timesteps of the training.
    TimestepSpacing, "timestep spacing" {
        /// Even, both ends among them.
        Linspace = "linspace",
        /// Even, counted from the lowest.
        Leading = "leading",
        /// Even, counted from the highest: what models for few steps were distilled with.
        Trailing = "trailing",
    }
}

names! {
    /// What a second pass enlarges.
    Upscaler, "upscaler" {
        /// The latents, bilinearly: soft.
        Latent = "latent",
        /// The decoded picture, by a Lanczos filter.
        Lanczos = "lanczos",
        /// The decoded picture, by a network that the worker has loaded.
        Network = "network",
    }
}

names! {
    /// How a preview is made from the latents of a running job.
    PreviewMethod, "preview method" {
        /// A linear map from latent channels to colours: next to free, coarse.
        LatentRgb = "latent_rgb",
        /// A tiny decoder.
        Taesd = "taesd",
        /// The model's own decoder: exact and slow.
        Vae = "vae",
    }
}
