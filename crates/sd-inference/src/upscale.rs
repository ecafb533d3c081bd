//! Upscaling a finished picture with a network of its own.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use image::RgbImage;
use image::imageops::FilterType;
pub use sd_models::esrgan::UpscaleTiles;
use sd_models::esrgan::{RrdbNet, TiledUpscale};
use sd_models::nn::{Seamless, Workspace};

use crate::pipeline::Budget;
use crate::{Error, MemoryLimit, Result, circular};

/// Pixels of a result at most.
const MAX_PIXELS: u64 = 8192 * 8192;

/// Bytes of a pixel while a filter brings the result to another size.
const SCALED_PIXEL: u64 = 32;

/// A loaded upscaling network of the ESRGAN family.
///
/// ```no_run
/// use sd_inference::{DType, Device, UpscaleOptions, UpscaleNetwork};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = UpscaleNetwork::open("RealESRGAN_x4plus.safetensors", &Device::Cpu, DType::F32)?;
/// let picture = image::open("circle.png")?.to_rgb8();
/// network.upscale(&picture, &UpscaleOptions::default(), &mut |_, _| {})?.save("circle-4x.png")?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct UpscaleNetwork {
    network: RrdbNet,
    name: String,
    device: Device,
    /// Bytes of its weights.
    weights: u64,
}

/// What is known of a network by its file's header alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpscalerInfo {
    /// As [`UpscaleNetwork::name`].
    pub name: String,
    /// As [`UpscaleNetwork::scale`].
    pub scale: usize,
    /// As [`UpscaleNetwork::size_multiple`].
    pub size_multiple: usize,
}

impl UpscalerInfo {
    /// Reads the header of a safetensors file.
    ///
    /// # Errors
    /// As [`UpscaleNetwork::open`], as far as that shows without the weights.
    pub fn read(path: &Path, device: &Device) -> Result<Self> {
        let (scale, size_multiple) = RrdbNet::scale_in(path, device)?;
        Ok(Self { name: name_of(path), scale, size_multiple })
    }
}

fn name_of(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// How a picture is upscaled.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct UpscaleOptions {
    /// By how much the result is larger, 1 to 8: where the network has another scale, its result is scaled to this one
    /// (Lanczos). `None`: as the network does it.
    pub scale: Option<f64>,
    /// How the picture is cut.
    pub tiles: UpscaleTiles,
    /// Which edges of the picture meet: beyond them the network sees the other side, as far as the tiles' margin goes.
    pub seamless: Seamless,
}

impl UpscaleOptions {
    /// Width and height of the result of a picture of `size` by a network that enlarges by `own`.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a scale out of its range, a picture without pixels or a result that would be too
    /// large.
    pub fn result_size(&self, (width, height): (u32, u32), own: usize) -> Result<(u32, u32)> {
        let invalid =
            |field, value: String, limit: String| Err(Error::InvalidRequest { field, value, limit });
        if let Some(scale) = self.scale.filter(|scale| !(1.0..=8.0).contains(scale)) {
            return invalid("scale", scale.to_string(), "a number from 1 to 8".into());
        }
        if width.min(height) == 0 {
            return invalid("image", format!("{width}x{height} pixels"), "at least one pixel".into());
        }
        let own = own as f64;
        let scale = self.scale.unwrap_or(own);
        let largest = scale.max(own);
        if f64::from(width) * f64::from(height) * largest * largest > MAX_PIXELS as f64 {
            let limit =
                format!("small enough that {largest} times its sides are {MAX_PIXELS} pixels at most");
            return invalid("image", format!("{width}x{height} pixels"), limit);
        }
        let side = |side: u32| (f64::from(side) * scale).round() as u32;
        Ok((side(width), side(height)))
    }
}

/// A picture on its way to a larger one: advanced tile by tile, so that progress, cancellation and deadlines are loops in
/// the caller.
pub struct Upscaling {
    network: Arc<UpscaleNetwork>,
    part: Part,
}

/// What belongs to one picture.
struct Part {
    tiles: TiledUpscale,
    /// Width and height of the result.
    size: (u32, u32),
    seamless: Seamless,
    /// Keeps the network's memory from the first tile to the last.
    _workspace: Workspace,
}

impl UpscaleNetwork {
    /// Loads a safetensors file.
    ///
    /// # Errors
    /// [`Error::Model`] when the file is no network of this family.
    pub fn open(path: impl AsRef<Path>, device: &Device, dtype: DType) -> Result<Self> {
        let path = path.as_ref();
        let (name, network) = (name_of(path), RrdbNet::open(path, device, dtype)?);
        let weights = RrdbNet::loaded_bytes(path, device, dtype)?;
        Ok(Self { network, name, device: device.clone(), weights })
    }

    /// What it is.
    pub fn info(&self) -> UpscalerInfo {
        let (name, scale, size_multiple) = (self.name.clone(), self.scale(), self.size_multiple());
        UpscalerInfo { name, scale, size_multiple }
    }

    /// The name of its file, without the ending.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// By how much the network enlarges.
    pub fn scale(&self) -> usize {
        self.network.scale()
    }

    /// Its tiles begin at multiples of so many pixels.
    pub fn size_multiple(&self) -> usize {
        self.network.size_multiple()
    }

    /// The memory that enlarging a picture of this size takes beside the weights, in bytes.
    pub fn workspace(&self, (width, height): (u32, u32), options: &UpscaleOptions) -> u64 {
        let size = [height as usize, width as usize];
        let own = self.network.workspace(size, options.tiles, options.seamless);
        let pixels = options.result_size((width, height), self.scale()).unwrap_or_default();
        // Both directions of the filter that brings it to another size work on f32.
        let scaled = u64::from(pixels.0) * u64::from(pixels.1) * SCALED_PIXEL;
        own.saturating_add(if options.scale.is_some() { scaled } else { 0 })
    }

    /// Refuses a picture whose enlarging would not fit into memory beside the network: for a network that works without a
    /// model, which checks by itself ([`Pipeline::begin_upscale`](crate::Pipeline::begin_upscale)).
    ///
    /// # Errors
    /// [`Error::NotEnoughMemory`] with figures.
    pub fn check_memory(
        &self,
        limit: MemoryLimit,
        picture: (u32, u32),
        options: &UpscaleOptions,
    ) -> Result<()> {
        let budget = Budget::alone(limit, &self.device, self.weights);
        budget.check_upscale(self.workspace(picture, options), picture, 0)
    }

    /// Enlarges a picture. `done` is told after each tile how many are done, and of how many.
    ///
    /// # Errors
    /// As [`UpscaleOptions::result_size`]; [`Error::NotFinite`] when the numbers left their range; device errors.
    pub fn upscale(
        &self,
        picture: &RgbImage,
        options: &UpscaleOptions,
        done: &mut dyn FnMut(usize, usize),
    ) -> Result<RgbImage> {
        let mut part = self.part(picture, options)?;
        while let Some((finished, total)) = part.step(self)? {
            done(finished, total);
        }
        part.finish()
    }

    /// Begins to enlarge a picture.
    ///
    /// # Errors
    /// As [`UpscaleOptions::result_size`], and device errors.
    pub fn begin(self: Arc<Self>, picture: &RgbImage, options: &UpscaleOptions) -> Result<Upscaling> {
        let part = self.part(picture, options)?;
        Ok(Upscaling { network: self, part })
    }

    fn part(&self, picture: &RgbImage, options: &UpscaleOptions) -> Result<Part> {
        let size = options.result_size(picture.dimensions(), self.scale())?;
        let pixels = to_pixels(picture, &self.device)?;
        let tiles = TiledUpscale::new(&self.network, &pixels, options.tiles, options.seamless)?;
        Ok(Part { tiles, size, seamless: options.seamless, _workspace: Workspace::new() })
    }
}

impl Upscaling {
    /// Enlarges the next tile; how many are done and of how many, or `None` where there was none left.
    ///
    /// # Errors
    /// Device errors.
    pub fn step(&mut self) -> Result<Option<(usize, usize)>> {
        self.part.step(&self.network)
    }

    /// The larger picture, once all tiles are done.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when the numbers left their range; device errors.
    pub fn finish(self) -> Result<RgbImage> {
        self.part.finish()
    }
}

impl Part {
    fn step(&mut self, network: &UpscaleNetwork) -> Result<Option<(usize, usize)>> {
        let more = self.tiles.step(&network.network)?;
        Ok(more.then(|| (self.tiles.done(), self.tiles.total())))
    }

    fn finish(self) -> Result<RgbImage> {
        let enlarged = to_image(&self.tiles.finish()?)?;
        if self.size == enlarged.dimensions() {
            return Ok(enlarged);
        }
        Ok(circular::scaled(&enlarged, self.size, self.seamless, |enlarged, width, height| {
            image::imageops::resize(enlarged, width, height, FilterType::Lanczos3)
        }))
    }
}

/// Bytes as pixels `(1, 3, height, width)` in 0..=1.
fn to_pixels(image: &RgbImage, device: &Device) -> Result<Tensor> {
    let (width, height) = image.dimensions();
    let values: Vec<f32> = image.as_raw().iter().map(|byte| f32::from(*byte) / 255.0).collect();
    let pixels = Tensor::from_vec(values, (height as usize, width as usize, 3), &Device::Cpu)?;
    Ok(pixels.permute((2, 0, 1))?.unsqueeze(0)?.contiguous()?.to_device(device)?)
}

/// Pixels `(1, 3, height, width)` in 0..=1 as bytes.
fn to_image(pixels: &Tensor) -> Result<RgbImage> {
    let (_, _, height, width) = pixels.dims4()?;
    let values = pixels.squeeze(0)?.permute((1, 2, 0))?.flatten_all()?.to_vec1::<f32>()?;
    if values.iter().any(|value| !value.is_finite()) {
        return Err(Error::NotFinite { stage: "the upscaler".into() });
    }
    let bytes = values.into_iter().map(|value| (value.clamp(0.0, 1.0) * 255.0).round_ties_even() as u8);
    RgbImage::from_raw(width as u32, height as u32, bytes.collect())
        .ok_or_else(|| Error::NotFinite { stage: "the picture's size".into() })
}
