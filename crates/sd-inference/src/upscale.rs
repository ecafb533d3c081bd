//! Upscaling a finished picture with a network of its own.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use image::RgbImage;
use image::imageops::FilterType;
use sd_models::esrgan::RrdbNet;
pub use sd_models::esrgan::UpscaleTiles;
use sd_models::nn::Workspace;

use crate::{Error, Result};

/// Pixels of a result at most.
const MAX_PIXELS: u64 = 8192 * 8192;

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
    device: Device,
}

/// How a picture is upscaled.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct UpscaleOptions {
    /// By how much the result is larger, 1 to 8: where the network has another scale, its result is scaled to this one
    /// (Lanczos). `None`: as the network does it.
    pub scale: Option<f64>,
    /// How the picture is cut.
    pub tiles: UpscaleTiles,
}

impl UpscaleNetwork {
    /// Loads a safetensors file.
    ///
    /// # Errors
    /// [`Error::Model`] when the file is no network of this family.
    pub fn open(path: impl AsRef<Path>, device: &Device, dtype: DType) -> Result<Self> {
        Ok(Self { network: RrdbNet::open(path.as_ref(), device, dtype)?, device: device.clone() })
    }

    /// By how much the network enlarges.
    pub fn scale(&self) -> usize {
        self.network.scale()
    }

    /// Enlarges a picture. `done` is told after each tile how many are done, and of how many.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a scale out of its range or a result that would be too large;
    /// [`Error::NotFinite`] when the numbers left their range; device errors.
    pub fn upscale(
        &self,
        picture: &RgbImage,
        options: &UpscaleOptions,
        done: &mut dyn FnMut(usize, usize),
    ) -> Result<RgbImage> {
        let (width, height) = picture.dimensions();
        let invalid =
            |field, value: String, limit: String| Err(Error::InvalidRequest { field, value, limit });
        if let Some(scale) = options.scale.filter(|scale| !(1.0..=8.0).contains(scale)) {
            return invalid("scale", scale.to_string(), "a number from 1 to 8".into());
        }
        let own = self.scale() as u32;
        if width.min(height) == 0 {
            return invalid("image", format!("{width}x{height} pixels"), "at least one pixel".into());
        }
        let largest = options.scale.unwrap_or(0.0).max(f64::from(own));
        if f64::from(width) * f64::from(height) * largest * largest > MAX_PIXELS as f64 {
            let limit =
                format!("small enough that {largest} times its sides are {MAX_PIXELS} pixels at most");
            return invalid("image", format!("{width}x{height} pixels"), limit);
        }
        let _workspace = Workspace::new();
        let pixels = self.network.upscale(&to_pixels(picture, &self.device)?, options.tiles, done)?;
        let enlarged = to_image(&pixels)?;
        Ok(match options.scale.filter(|scale| *scale != f64::from(own)) {
            None => enlarged,
            Some(scale) => {
                let side = |side: u32| (f64::from(side) * scale).round() as u32;
                image::imageops::resize(&enlarged, side(width), side(height), FilterType::Lanczos3)
            }
        })
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
