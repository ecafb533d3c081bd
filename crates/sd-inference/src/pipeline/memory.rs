//! Whether a model and the work on a picture fit into memory, told before either begins.

use candle_core::{DType, Device};
use sd_models::esrgan::RrdbNet;
use sd_models::taesd::AutoencoderTiny;
use sd_models::unet::UnetConfig;
use sd_models::vae::{Tiles, VaeConfig};

use super::load::{DIFFUSION_STEM, Opened, TEXT_STEM, UPSCALER_DTYPE};
use super::tiny;
use crate::machine::{Bytes, available_memory};
use crate::{Error, Result};

/// How much memory a pipeline may take on the CPU. Elsewhere nothing is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryLimit {
    /// What the machine can still give whenever it is asked. No limit where it does not tell.
    #[default]
    Available,
    /// So many bytes, for the weights and the work on a picture together.
    Bytes(u64),
    /// No limit: whatever is asked for is tried.
    Off,
}

/// When the VAE decodes in tiles: in bounded memory, with a result that differs a little.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VaeTiling {
    /// When a picture at once would take more than 4 GiB, or more than three quarters of the memory there is.
    #[default]
    Auto,
    /// Whenever a picture is larger than one tile.
    Always,
    /// Never.
    Never,
}

/// What decoding a picture at once may take at most before tiles are chosen.
const DECODE_AT_ONCE: u64 = 4 << 30;
/// Bytes of a pixel in what tiles are put together from: rows of tiles, strips, the picture and its copies.
const JOINED_PIXEL: u64 = 64;

/// The memory that a model and one picture take, in bytes. Estimates: within 15 percent on the models at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryEstimate {
    /// All weights as they lie in memory.
    pub weights: u64,
    /// The largest of what one denoising step and the decoding take beside them.
    pub workspace: u64,
}

impl MemoryEstimate {
    /// Both together.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.workspace)
    }
}

/// What the work on one picture depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Latents in one forward pass of the UNet: twice the pictures where there is guidance.
    pub(crate) batch: usize,
    pub(crate) control: ControlWork,
    /// What a network takes that enlarges between two passes, in bytes.
    pub(crate) enlarging: u64,
    /// What decoding a preview beside all this takes, in bytes.
    pub(crate) beside: u64,
}

/// What ControlNets take, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ControlWork {
    /// The weights of all that are loaded, whether they take part or not.
    pub(crate) weights: u64,
    /// What they add to the UNet's states, held while it runs.
    pub(crate) residuals: u64,
}

/// How a picture is going to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The tiles that the VAE decodes; `None`: the whole picture at once.
    pub(crate) tiles: Option<Tiles>,
    /// The memory that it takes beside the weights, in bytes.
    pub(crate) workspace: u64,
}

/// The memory that is left for the work, and who says so.
#[derive(Debug, Clone)]
struct Room {
    bytes: u64,
    reason: String,
}

/// The rules of one pipeline about memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    limit: MemoryLimit,
    tiling: VaeTiling,
    /// Bytes of the weights.
    weights: u64,
    /// Whether another format would halve them.
    halvable: bool,
    /// Whether a tiny autoencoder decodes.
    tiny: bool,
}

impl Budget {
    pub(super) fn new(opened: &Opened<'_>) -> Result<Self> {
        let limit = match opened.options.device.is_cpu() {
            true => opened.options.memory,
            false => MemoryLimit::Off,
        };
        let halvable = opened.options.dtype == DType::F32;
        let tiny = AutoencoderTiny::is_in(&opened.weights("vae", DIFFUSION_STEM)?);
        let weights = weights(opened, &PARTS)?;
        Ok(Self { limit, tiling: opened.options.vae_tiling, weights, halvable, tiny })
    }

    /// For a network alone, loaded or about to be, whose weights take `weights` bytes.
    pub(crate) fn alone(limit: MemoryLimit, device: &Device, weights: u64) -> Self {
        let limit = if device.is_cpu() { limit } else { MemoryLimit::Off };
        Self { limit, tiling: VaeTiling::Auto, weights, halvable: false, tiny: false }
    }

    /// With the weights of a model that is loaded beside this one, all but its VAE.
    pub(super) fn with_beside(self, beside: &Opened<'_>) -> Result<Self> {
        Ok(Self { weights: self.weights.saturating_add(weights(beside, &PARTS[..3])?), ..self })
    }

    /// What the model takes, and the work on one picture with guidance.
    pub(super) fn estimate(&self, unet: &UnetConfig, vae: &VaeConfig, work: Work) -> MemoryEstimate {
        let room = self.room(None).map(|room| room.bytes.saturating_sub(self.weights));
        MemoryEstimate { weights: self.weights, workspace: self.plan(unet, vae, work, room).workspace }
    }

    /// Refuses a model that does not fit together with the work on one picture.
    pub(super) fn check_model(
        &self,
        unet: &UnetConfig,
        vae: &VaeConfig,
        work: Work,
        name: &str,
    ) -> Result<()> {
        let Some(room) = self.room(None) else { return Ok(()) };
        let estimate = self.estimate(unet, vae, work);
        if estimate.total() <= room.bytes {
            return Ok(());
        }
        let Work { width, height, .. } = work;
        let MemoryEstimate { weights, workspace } = estimate;
        Err(Error::NotEnoughMemory {
            what: format!(
                "{name} needs {} ({} of weights, {} to make a picture of {width}x{height})",
                Bytes(estimate.total()),
                Bytes(weights),
                Bytes(workspace)
            ),
            room: room.reason,
            advice: match (self.halvable, weights <= room.bytes) {
                (true, true) => {
                    "dtype bf16 halves the weights, a smaller width and height need less for the rest"
                }
                (true, false) => "dtype bf16 halves the weights",
                (false, true) => "a smaller width and height need less",
                (false, false) => "this model needs a machine with more memory",
            }
            .into(),
        })
    }

    /// How the picture is going to be made, if it can be.
    pub(crate) fn check_work(&self, unet: &UnetConfig, vae: &VaeConfig, work: Work) -> Result<Plan> {
        let room = self.room(Some(work.control.weights));
        let plan = self.plan(unet, vae, work, room.as_ref().map(|room| room.bytes));
        let Some(room) = room.filter(|room| plan.workspace > room.bytes) else { return Ok(plan) };
        let Work { width, height, batch, .. } = work;
        let tiling = match self.tiling == VaeTiling::Never && plan.tiles.is_none() {
            true => ", or let the VAE decode in tiles",
            false => "",
        };
        Err(Error::NotEnoughMemory {
            what: format!(
                "width {width} and height {height} need {} beside the model",
                Bytes(plan.workspace)
            ),
            room: room.reason,
            advice: match batch > 2 {
                true => format!("ask for fewer images at once or a smaller width and height{tiling}"),
                false => format!("ask for a smaller width and height{tiling}"),
            },
        })
    }

    /// Decides about tiles and adds up what is held at most.
    fn plan(&self, unet: &UnetConfig, vae: &VaeConfig, work: Work, room: Option<u64>) -> Plan {
        let Work { width, height, batch, control, enlarging, beside } = work;
        let scale = vae.scale_factor();
        let step = unet.workspace(batch, height / scale, width / scale).saturating_add(control.residuals);
        let step = step.max(enlarging);
        if self.tiny {
            // It takes so little that it never works in tiles.
            let decode = AutoencoderTiny::decode_workspace(height, width);
            return Plan { tiles: None, workspace: step.max(decode).saturating_add(beside) };
        }
        let at_once = vae.decode_workspace(height, width);
        let room = room.map(|room| room.saturating_sub(beside));
        let bound = room.map_or(DECODE_AT_ONCE, |room| DECODE_AT_ONCE.min(room / 4 * 3));
        let wanted = match self.tiling {
            VaeTiling::Auto => at_once > bound,
            VaeTiling::Always => true,
            VaeTiling::Never => false,
        };
        let of_tile = |tiles: Tiles| {
            let (height, width) = (tiles.pixels().min(height), tiles.pixels().min(width));
            vae.decode_workspace(height, width)
        };
        let mut tiles = Some(Tiles::of(vae)).filter(|_| wanted);
        while let Some(smaller) = tiles.filter(|tiles| of_tile(*tiles) > bound).and_then(Tiles::smaller) {
            tiles = Some(smaller);
        }
        let tiles = tiles.filter(|tiles| tiles.divide(height, width));
        let decode = match tiles {
            Some(tiles) => {
                let joined = (width as u64).saturating_mul(height as u64).saturating_mul(JOINED_PIXEL);
                of_tile(tiles).saturating_add(joined)
            }
            None => at_once,
        };
        Plan { tiles, workspace: step.max(decode).saturating_add(beside) }
    }

    /// Refuses to enlarge a picture of this size by a network that takes `bytes` for it.
    pub(crate) fn check_upscale(&self, bytes: u64, (width, height): (u32, u32), nets: u64) -> Result<()> {
        let Some(room) = self.room(Some(nets)).filter(|room| bytes > room.bytes) else { return Ok(()) };
        Err(Error::NotEnoughMemory {
            what: format!("enlarging {width}x{height} pixels needs {} beside the model", Bytes(bytes)),
            room: room.reason,
            advice: "take smaller tiles, or a smaller picture".into(),
        })
    }

    /// Refuses weights of `bytes` that are to be loaded beside the model and `before`, which are loaded already.
    pub(crate) fn check_more(&self, bytes: u64, before: u64, name: &str) -> Result<()> {
        let Some(room) = self.room(Some(before)).filter(|room| bytes > room.bytes) else { return Ok(()) };
        Err(Error::NotEnoughMemory {
            what: format!("{name} needs {} beside the model", Bytes(bytes)),
            room: room.reason,
            advice: match self.halvable {
                true => "dtype bf16 halves the weights".into(),
                false => "leave it out, or use a machine with more memory".into(),
            },
        })
    }

    /// What there is for the weights and the work or, once the model is loaded, for the work alone; `beside`: the weights
    /// that are loaded beside the model's own.
    fn room(&self, beside: Option<u64>) -> Option<Room> {
        match self.limit {
            MemoryLimit::Off => None,
            MemoryLimit::Bytes(limit) => {
                let loaded = beside.map(|beside| self.weights.saturating_add(beside));
                let bytes = limit.saturating_sub(loaded.unwrap_or(0));
                let reason = match loaded {
                    Some(_) => format!("{} are left of the limit of {}", Bytes(bytes), Bytes(limit)),
                    None => format!("the limit is {}", Bytes(limit)),
                };
                Some(Room { bytes, reason })
            }
            MemoryLimit::Available => available_memory()
                .map(|memory| Room { bytes: memory.available, reason: format!("available are {memory}") }),
        }
    }
}

/// The folders of parts with weights, and how their files are called.
const PARTS: [(&str, &str); 4] = [
    ("text_encoder", TEXT_STEM),
    ("text_encoder_2", TEXT_STEM),
    ("unet", DIFFUSION_STEM),
    ("vae", DIFFUSION_STEM),
];

/// The memory of these parts' weights.
fn weights(opened: &Opened<'_>, parts: &[(&str, &str)]) -> Result<u64> {
    let mut bytes = 0u64;
    for (folder, stem) in parts {
        if opened.contains(&format!("{folder}/config.json")) {
            bytes = bytes.saturating_add(opened.loaded_bytes(folder, stem)?);
        }
    }
    if let Some(path) = &opened.options.upscaler {
        let network = RrdbNet::loaded_bytes(path, &opened.options.device, UPSCALER_DTYPE)?;
        bytes = bytes.saturating_add(network);
    }
    Ok(bytes.saturating_add(tiny::loaded_bytes(opened)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    fn sd15() -> (UnetConfig, VaeConfig) {
        let vae = r#"{"block_out_channels": [128, 256, 512, 512], "sample_size": 512}"#;
        (UnetConfig::default(), serde_json::from_str(vae).unwrap())
    }

    fn budget(limit: MemoryLimit, tiling: VaeTiling) -> Budget {
        Budget { limit, tiling, weights: 4 * GB, halvable: true, tiny: false }
    }

    fn work(width: usize, height: usize) -> Work {
        Work { width, height, batch: 2, control: ControlWork::default(), enlarging: 0, beside: 0 }
    }

    fn tile(side: usize, room: u64, tiling: VaeTiling) -> Option<usize> {
        let (unet, vae) = sd15();
        let plan = budget(MemoryLimit::Off, tiling).plan(&unet, &vae, work(side, side), Some(room));
        plan.tiles.map(Tiles::pixels)
    }

    #[test]
    fn tiles_are_chosen_where_a_picture_at_once_takes_too_much() {
        // At once a picture takes 0.8 GB at 512 pixels, 3.2 GB at 1024 and 12.9 GB at 2048.
        for (side, room, tiles) in [
            (512, 24 * GB, None),
            (1024, 24 * GB, None),
            (1024, 5 * GB, None),
            (1024, 4 * GB, Some(512)),
            (1024, GB, Some(256)),
            (512, GB, Some(256)),
            (1280, 24 * GB, Some(512)),
            (2048, 24 * GB, Some(512)),
        ] {
            assert_eq!(tile(side, room, VaeTiling::Auto), tiles, "{side} pixels, {room} bytes");
        }
        assert_eq!(tile(2048, 24 * GB, VaeTiling::Never), None);
        assert_eq!(tile(1024, 24 * GB, VaeTiling::Always), Some(512));
        // One tile would be the whole picture.
        assert_eq!(tile(512, 24 * GB, VaeTiling::Always), None);
    }

    #[test]
    fn tiles_keep_the_memory_of_large_pictures_bounded() {
        let (unet, vae) = sd15();
        let budget = budget(MemoryLimit::Off, VaeTiling::Auto);
        let decode = |side: usize| {
            let plan = budget.plan(
                &UnetConfig { block_out_channels: vec![], ..unet.clone() },
                &vae,
                work(side, side),
                None,
            );
            plan.workspace
        };
        assert_eq!(decode(1024), 3 * 256 * 1024 * 1024 * 4);
        assert_eq!(decode(2048), 3 * 256 * 512 * 512 * 4 + 2048 * 2048 * JOINED_PIXEL);
        assert!(decode(4096) < 2 * GB);
    }

    #[test]
    fn a_tiny_autoencoder_takes_less_and_no_tiles() {
        let (unet, vae) = sd15();
        let budget = budget(MemoryLimit::Off, VaeTiling::Always);
        let plan = |tiny| Budget { tiny, ..budget }.plan(&unet, &vae, work(2048, 2048), None);
        assert_eq!(plan(true).tiles, None);
        assert!(plan(false).tiles.is_some());
    }

    /// It is decoded while a step is taken or a picture decoded, whatever is larger.
    #[test]
    fn a_preview_beside_counts_in_addition() {
        let (unet, vae) = sd15();
        let budget = budget(MemoryLimit::Off, VaeTiling::Auto);
        let taken = |beside: u64| budget.plan(&unet, &vae, Work { beside, ..work(512, 512) }, None).workspace;
        assert_eq!(taken(GB), taken(0) + GB);
        // What it takes is not there for the tiles.
        let tiles =
            |beside: u64| budget.plan(&unet, &vae, Work { beside, ..work(1024, 1024) }, Some(5 * GB)).tiles;
        assert_eq!((tiles(0), tiles(GB).map(Tiles::pixels)), (None, Some(512)));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_figures_and_advice() {
        let (unet, vae) = sd15();
        let check = |limit, tiling, work| budget(limit, tiling).check_work(&unet, &vae, work);
        assert!(check(MemoryLimit::Bytes(6 * GB), VaeTiling::Auto, work(512, 512)).is_ok());
        assert!(check(MemoryLimit::Off, VaeTiling::Never, work(8192, 8192)).is_ok());

        let message =
            check(MemoryLimit::Bytes(6 * GB), VaeTiling::Never, work(2048, 1024)).unwrap_err().to_string();
        for part in ["width 2048", "height 1024", "6.44 GB", "2.00 GB", "6.00 GB", "tiles"] {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
        let many = Work { batch: 64, ..work(1024, 1024) };
        let message = check(MemoryLimit::Bytes(9 * GB), VaeTiling::Auto, many).unwrap_err().to_string();
        assert!(message.contains("fewer images"), "{message}");

        let refused = |limit| {
            let budget = budget(MemoryLimit::Bytes(limit), VaeTiling::Auto);
            budget.check_model(&unet, &vae, work(512, 512), "sd15 in f32").unwrap_err().to_string()
        };
        let message = refused(3 * GB);
        for part in ["sd15 in f32", "4.00 GB of weights", "512x512", "the limit is 3.00 GB", "bf16"] {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
        assert!(!message.contains("smaller width"), "the weights alone are too much: {message}");
        assert!(refused(4 * GB + GB / 10).contains("smaller width"));
    }

    /// The sizes of a request are the user's: no size may overflow.
    #[test]
    fn absurd_sizes_are_refused_and_do_not_overflow() {
        let (unet, vae) = sd15();
        for tiling in [VaeTiling::Auto, VaeTiling::Always, VaeTiling::Never] {
            let budget = budget(MemoryLimit::Bytes(u64::MAX / 2), tiling);
            let side = usize::MAX / 8 * 8;
            let control = ControlWork { weights: u64::MAX, residuals: u64::MAX };
            let (enlarging, beside) = (u64::MAX, u64::MAX);
            let huge = Work { width: side, height: side, batch: usize::MAX, control, enlarging, beside };
            assert!(budget.check_work(&unet, &vae, huge).is_err());
        }
    }
}
