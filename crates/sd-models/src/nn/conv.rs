//! Two-dimensional convolution.

use std::sync::Arc;

use candle_core::Tensor;
use sd_kernels::{ConvEpilogue, ConvGeometry, ImageShape, PackedConv2d};

use super::array::{Array, Format, f32_values, read};
use super::feature_map::MapData;
use super::pool::Pooled;
use super::sequence::{SequenceData, mixed_devices};
use super::{FeatureMap, Sequence, cpu};
use crate::{Result, Weights};

/// Where zeros are added around the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// The same number on all four sides.
    Symmetric(usize),
    /// One row below and one column to the right, as the VAE's encoder downsamples.
    RightBottom,
}

/// The shape of a convolution.
#[derive(Debug, Clone, Copy)]
pub struct ConvConfig {
    /// Height and width of the (square) kernel.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: Padding,
}

impl ConvConfig {
    /// 3x3 that keeps height and width.
    pub const SAME_3X3: Self = Self { kernel: 3, stride: 1, padding: Padding::Symmetric(1) };
    /// 1x1: a linear layer for each pixel.
    pub const POINTWISE: Self = Self { kernel: 1, stride: 1, padding: Padding::Symmetric(0) };

    fn geometry(self) -> ConvGeometry {
        let padding = match self.padding {
            Padding::Symmetric(amount) => sd_kernels::Padding::same(amount),
            Padding::RightBottom => sd_kernels::Padding::right_bottom(1),
        };
        ConvGeometry { stride: self.stride, padding, upsample: false }
    }
}

/// What is added to a convolution's output while it is still at hand.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConvInputs<'a> {
    /// `(batch, 1, out_channels)`, added to every pixel: the time embedding of a residual block.
    pub per_channel: Option<&'a Sequence>,
    /// A map of the output's shape: the residual.
    pub residual: Option<&'a FeatureMap>,
    /// Resample the input to this `(height, width)` by nearest neighbour first.
    pub upsample_to: Option<(usize, usize)>,
}

/// A convolution.
#[derive(Debug, Clone)]
pub struct Conv2d {
    weights: ConvWeights,
    config: ConvConfig,
}

#[derive(Debug, Clone)]
enum ConvWeights {
    Packed(Arc<PackedConv2d>),
    Tensors { weight: Tensor, bias: Tensor },
}

impl Conv2d {
    /// Loads `weight` `(out_channels, in_channels, kernel, kernel)` and `bias` `(out_channels)` of this scope.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn load(
        weights: &Weights,
        in_channels: usize,
        out_channels: usize,
        config: ConvConfig,
    ) -> Result<Self> {
        let shape = [out_channels, in_channels, config.kernel, config.kernel];
        weights.layer(Some(&shape), || Self::read(weights, shape, config))
    }

    fn read(weights: &Weights, shape: [usize; 4], config: ConvConfig) -> Result<Self> {
        let out_channels = shape[0];
        let weights = match weights.device().is_cpu() {
            true => ConvWeights::Packed(Arc::new(PackedConv2d::new(
                cpu::kernels(),
                weights.stored("weight", &shape)?.as_packable(),
                shape,
                Some(weights.stored("bias", &[out_channels])?.as_packable()),
                config.geometry(),
                cpu::precision(weights.dtype()),
            )?)),
            false => ConvWeights::Tensors {
                weight: weights.tensor("weight", &shape)?,
                bias: weights.tensor("bias", &[out_channels])?.reshape((1, out_channels, 1, 1))?,
            },
        };
        Ok(Self { weights, config })
    }

    /// Loads `weight` alone; the bias is zero.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn load_unbiased(
        weights: &Weights,
        in_channels: usize,
        out_channels: usize,
        config: ConvConfig,
    ) -> Result<Self> {
        let shape = [out_channels, in_channels, config.kernel, config.kernel];
        let weights = match weights.device().is_cpu() {
            true => ConvWeights::Packed(Arc::new(PackedConv2d::new(
                cpu::kernels(),
                weights.stored("weight", &shape)?.as_packable(),
                shape,
                None,
                config.geometry(),
                cpu::precision(weights.dtype()),
            )?)),
            false => ConvWeights::Tensors {
                weight: weights.tensor("weight", &shape)?,
                bias: Tensor::zeros((1, out_channels, 1, 1), weights.dtype(), weights.device())?,
            },
        };
        Ok(Self { weights, config })
    }

    /// Convolves `input`.
    ///
    /// # Errors
    /// When the channels do not fit, or on device errors.
    pub fn forward(&self, input: &FeatureMap) -> Result<FeatureMap> {
        self.forward_with(input, ConvInputs::default())
    }

    /// Convolves `input` and adds what `inputs` says.
    ///
    /// # Errors
    /// When the shapes do not fit, or on device errors.
    pub fn forward_with(&self, input: &FeatureMap, inputs: ConvInputs<'_>) -> Result<FeatureMap> {
        match input.seamless.any() && self.config.kernel > 1 {
            true => self.forward_seamless(input, inputs),
            false => self.forward_bounded(input, inputs),
        }
    }

    /// Convolves a picture whose edges meet: with its other side around it, of which nothing is left in the end.
    fn forward_seamless(&self, input: &FeatureMap, inputs: ConvInputs<'_>) -> Result<FeatureMap> {
        let ConvConfig { stride, padding, .. } = self.config;
        let padding = match padding {
            Padding::Symmetric(amount) => amount,
            Padding::RightBottom => 1,
        };
        let (_, _, height, width) = input.dims();
        let doubled = inputs.upsample_to == Some((2 * height, 2 * width));
        let resampled = match inputs.upsample_to {
            Some((height, width)) if !doubled => Some(input.upsample_nearest(height, width)?),
            _ => None,
        };
        // Whole strides, so that every output stands where it stood.
        let around = padding.next_multiple_of(stride);
        let input = resampled.as_ref().unwrap_or(input).surrounded(around)?;
        let beyond = around / stride * if doubled { 2 } else { 1 };
        let residual = match inputs.residual {
            Some(residual) => Some(residual.clone().with_seamless(input.seamless).surrounded(beyond)?),
            None => None,
        };
        let (_, _, height, width) = input.dims();
        let upsample_to = doubled.then_some((2 * height, 2 * width));
        let inputs = ConvInputs { per_channel: inputs.per_channel, residual: residual.as_ref(), upsample_to };
        self.forward_bounded(&input, inputs)?.without_surroundings(beyond)
    }

    /// Convolves a picture that ends at its edges.
    fn forward_bounded(&self, input: &FeatureMap, inputs: ConvInputs<'_>) -> Result<FeatureMap> {
        match (&self.weights, &input.data) {
            (ConvWeights::Packed(packed), MapData::Cpu { .. }) => forward_packed(packed, input, inputs),
            (ConvWeights::Tensors { weight, bias }, MapData::Device(tensor)) => {
                let output = self.forward_tensors(weight, bias, tensor, inputs)?;
                Ok(input.with_data(MapData::Device(output)))
            }
            _ => Err(mixed_devices()),
        }
    }

    fn forward_tensors(
        &self,
        weight: &Tensor,
        bias: &Tensor,
        input: &Tensor,
        inputs: ConvInputs<'_>,
    ) -> Result<Tensor> {
        let resampled = match inputs.upsample_to {
            Some((height, width)) => Some(input.upsample_nearest2d(height, width)?),
            None => None,
        };
        let input = resampled.as_ref().unwrap_or(input);
        let (padded, padding) = match self.config.padding {
            Padding::Symmetric(padding) => (None, padding),
            Padding::RightBottom => (Some(FeatureMap::pad_right_bottom(input, 1)?), 0),
        };
        let input = padded.as_ref().unwrap_or(input);
        let mut output = input.conv2d(weight, padding, self.config.stride, 1, 1)?.broadcast_add(bias)?;
        match inputs.per_channel.map(|values| &values.0) {
            Some(SequenceData::Device(values)) => {
                let (batch, _, channels) = values.dims3()?;
                output = output.broadcast_add(&values.reshape((batch, channels, 1, 1))?)?;
            }
            Some(SequenceData::Cpu { .. }) => return Err(mixed_devices()),
            None => {}
        }
        match inputs.residual.map(|map| &map.data) {
            Some(MapData::Device(residual)) => output = (output + residual)?,
            Some(MapData::Cpu { .. }) => return Err(mixed_devices()),
            None => {}
        }
        Ok(output)
    }
}

fn forward_packed(packed: &PackedConv2d, input: &FeatureMap, inputs: ConvInputs<'_>) -> Result<FeatureMap> {
    let (_, _, height, width) = input.dims();
    // Doubling is folded into the gather; sizes that no halving leads to are resampled first.
    let upsample = inputs.upsample_to == Some((2 * height, 2 * width));
    let resampled = match inputs.upsample_to {
        Some((height, width)) if !upsample => Some(input.upsample_nearest(height, width)?),
        _ => None,
    };
    let MapData::Cpu { values, dims } = &resampled.as_ref().unwrap_or(input).data else {
        return Err(mixed_devices());
    };
    let [images, height, width, channels] = *dims;
    let shape = ImageShape { images, height, width, channels };
    let doubled = upsample.then(|| packed.with_upsample(true));
    let packed = doubled.as_ref().unwrap_or(packed);
    let to = packed.output_shape(shape)?;

    let per_image = match inputs.per_channel.map(|values| &values.0) {
        Some(SequenceData::Cpu { values, .. }) => Some(values.to_format(Format::F32)?),
        Some(SequenceData::Device(_)) => return Err(mixed_devices()),
        None => None,
    };
    let residual = match inputs.residual.map(|map| &map.data) {
        Some(MapData::Cpu { values, .. }) => Some(values.to_format(Format::F32)?),
        Some(MapData::Device(_)) => return Err(mixed_devices()),
        None => None,
    };
    let epilogue = ConvEpilogue {
        per_image: per_image.as_ref().and_then(f32_values),
        residual: residual.as_ref().and_then(f32_values),
        ..ConvEpilogue::default()
    };
    let mut output = Pooled::<f32>::new(to.len());
    read!(values, values => packed.forward(values, shape, &mut output, epilogue)?);
    let values = Array::F32(Arc::new(output));
    Ok(input.with_data(MapData::Cpu { values, dims: [to.images, to.height, to.width, to.channels] }))
}
