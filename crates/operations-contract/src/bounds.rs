//! The bounds of every field. What depends on the model (multiples, largest side) is in its
//! [`ModelCapabilities`](crate::ModelCapabilities) and lies within these.

use std::ops::RangeInclusive;

/// Characters of `prompt`, `negative_prompt`, `prompt_2` and `negative_prompt_2`.
pub const MAX_PROMPT_CHARS: usize = 10_000;
/// Characters of names: `model`, a LoRA, a control kind, `hive_id`, `worker_id`.
pub const MAX_NAME_CHARS: usize = 512;
/// `width` and `height`, in pixels.
pub const SIDE: RangeInclusive<u64> = 16..=4096;
/// `steps`.
pub const STEPS: RangeInclusive<u64> = 1..=150;
/// `guidance_scale`.
pub const GUIDANCE_SCALE: RangeInclusive<f64> = 0.0..=30.0;
/// `guidance_rescale`.
pub const GUIDANCE_RESCALE: RangeInclusive<f64> = 0.0..=1.0;
/// `guidance_interval.start` and `guidance_interval.end`, as parts of the run.
pub const GUIDANCE_SPAN: RangeInclusive<f64> = 0.0..=1.0;
/// `eta`.
pub const ETA: RangeInclusive<f64> = 0.0..=1.0;
/// `strength` of a transform or an inpaint.
pub const STRENGTH: RangeInclusive<f64> = 0.0..=1.0;
/// `num_images`.
pub const NUM_IMAGES: RangeInclusive<u64> = 1..=8;
/// `clip_skip`: how many of the last layers of the text encoder are left out.
pub const CLIP_SKIP: RangeInclusive<u64> = 0..=11;
/// `mask_blur`, in pixels.
pub const MASK_BLUR: RangeInclusive<u64> = 0..=256;
/// `padding_mask_crop`, in pixels.
pub const PADDING_MASK_CROP: RangeInclusive<u64> = 0..=1024;
/// `extend.left`, `extend.top`, `extend.right` and `extend.bottom`, in pixels.
pub const EXTEND: RangeInclusive<u64> = 0..=2048;
/// `extend.overlap`, in pixels.
pub const EXTEND_OVERLAP: RangeInclusive<u64> = 0..=256;
/// The longest side of a picture that is sent, in pixels.
pub const MAX_INPUT_SIDE: u32 = 8192;
/// The pixels of a picture that is sent, in all.
pub const MAX_INPUT_PIXELS: u64 = 4096 * 4096;
/// Entries of `loras`.
pub const MAX_LORAS: usize = 16;
/// `loras[].scale`.
pub const LORA_SCALE: RangeInclusive<f64> = -10.0..=10.0;
/// Entries of `control`.
pub const MAX_CONTROLS: usize = 4;
/// `control[].strength`.
pub const CONTROL_STRENGTH: RangeInclusive<f64> = 0.0..=2.0;
/// `control[].start` and `control[].end`, as parts of the run.
pub const CONTROL_SPAN: RangeInclusive<f64> = 0.0..=1.0;
/// `hires.scale`.
pub const HIRES_SCALE: RangeInclusive<f64> = 1.0..=4.0;
/// `refiner.start`, as a share of the noise.
pub const REFINER_START: RangeInclusive<f64> = 0.01..=0.99;
/// `scale` of an upscale.
pub const UPSCALE_SCALE: RangeInclusive<f64> = 1.0..=8.0;
/// `tile` of an upscale, in pixels.
pub const UPSCALE_TILE: RangeInclusive<u64> = 32..=1024;
/// `margin` of an upscale, in pixels; also a quarter of the tile at most.
pub const UPSCALE_MARGIN: RangeInclusive<u64> = 0..=256;
/// `preview.every`, in steps.
pub const PREVIEW_EVERY: RangeInclusive<u64> = 1..=150;
/// `preview.max_side`, in pixels.
pub const PREVIEW_MAX_SIDE: RangeInclusive<u64> = 16..=1024;
/// `output.quality`.
pub const QUALITY: RangeInclusive<u64> = 1..=100;
/// `deadline_ms`: a day at most.
pub const DEADLINE_MS: RangeInclusive<u64> = 1..=86_400_000;
