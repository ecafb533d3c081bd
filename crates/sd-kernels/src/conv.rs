//! Two-dimensional convolution over channels-last images, as a product that gathers its rows on the fly.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use std::sync::Arc;

use crate::element::{Element, Lanes, Output, Values, typed};
use crate::error::expect;
use crate::gemm::epilogue::Target;
use crate::gemm::gather::{Dense, Gather};
use crate::gemm::multiply;
use crate::gemm::pack::{Columns, PackedB};
use crate::winograd::{self, Images};
use crate::{Activation, KernelError, Kernels, Precision, Weights};

/// Zeros around an image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the left.
    pub left: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Padding {
    /// The same on all sides.
    pub const fn same(pixels: usize) -> Self {
        Self { top: pixels, bottom: pixels, left: pixels, right: pixels }
    }

    /// Right and bottom only, as the VAE encoder pads before it halves an image.
    pub const fn right_bottom(pixels: usize) -> Self {
        Self { top: 0, bottom: pixels, left: 0, right: pixels }
    }
}

/// How a convolution's window moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvGeometry {
    /// Pixels from one output to the next, in both directions; at least 1.
    pub stride: usize,
    /// Zeros around the (upsampled) input.
    pub padding: Padding,
    /// Read the input as if each pixel were doubled in both directions (nearest-neighbour upsampling).
    pub upsample: bool,
}

impl ConvGeometry {
    /// Stride 1 and `pixels` of padding on all sides.
    pub const fn padded(pixels: usize) -> Self {
        Self { stride: 1, padding: Padding::same(pixels), upsample: false }
    }
}

/// The shape of a batch of channels-last images: (images, height, width, channels).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageShape {
    /// Number of images.
    pub images: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
    /// Values for each pixel, adjacent in memory.
    pub channels: usize,
}

impl ImageShape {
    /// Values in the batch.
    pub const fn len(&self) -> usize {
        self.images * self.height * self.width * self.channels
    }

    /// Whether there are no values.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What is fused to the end of a convolution:
/// `output = activation(convolution + bias + per_image) + residual`.
#[derive(Debug, Clone, Copy)]
pub struct ConvEpilogue<'a, O> {
    /// One value for each image and output channel, (images, outputs): a time embedding.
    pub per_image: Option<&'a [f32]>,
    /// Applied before the residual is added.
    pub activation: Activation,
    /// Added last; of the output's shape.
    pub residual: Option<&'a [O]>,
}

impl<O> Default for ConvEpilogue<'_, O> {
    fn default() -> Self {
        Self { per_image: None, activation: Activation::None, residual: None }
    }
}

/// The weight and bias of a convolution, packed once for the kernels that will read them.
#[derive(Debug, Clone)]
pub struct PackedConv2d {
    b: Arc<PackedB>,
    channels: usize,
    kernel: [usize; 2],
    geometry: ConvGeometry,
    winograd: Option<bool>,
}

impl PackedConv2d {
    /// Packs `weight`, (outputs, channels, kernel height, kernel width) as in a checkpoint, and `bias`,
    /// (outputs).
    pub fn new(
        kernels: Kernels,
        weight: Weights<'_>,
        [outputs, channels, kernel_height, kernel_width]: [usize; 4],
        bias: Option<Weights<'_>>,
        geometry: ConvGeometry,
        precision: Precision,
    ) -> Result<Self, KernelError> {
        if geometry.stride == 0 || kernel_height * kernel_width * channels == 0 {
            return Err(KernelError::Unsupported("a convolution with stride, window or channels zero"));
        }
        let shape = [outputs, channels, kernel_height * kernel_width];
        let b = Arc::new(PackedB::new(kernels, weight, shape, bias, Columns::Plain, precision)?);
        Ok(Self { b, channels, kernel: [kernel_height, kernel_width], geometry, winograd: None })
    }

    /// The same convolution, sharing its weights, that reads its input doubled or as it is.
    pub fn with_upsample(&self, upsample: bool) -> Self {
        Self { geometry: ConvGeometry { upsample, ..self.geometry }, ..self.clone() }
    }

    /// The same convolution, sharing its weights, by Winograd's products wherever they apply, or nowhere: to
    /// compare both in tests and benchmarks.
    #[doc(hidden)]
    pub fn with_winograd(&self, winograd: bool) -> Self {
        Self { winograd: Some(winograd), ..self.clone() }
    }

    /// Whether an image of this output shape is computed by Winograd's products.
    fn by_winograd(&self, to: ImageShape) -> bool {
        let window = self.kernel == [3, 3] && self.geometry.stride == 1;
        window && self.winograd.unwrap_or_else(|| winograd::pays(&self.b, self.channels, to))
    }

    /// Channels of the output.
    pub fn outputs(&self) -> usize {
        self.b.n
    }

    /// Channels of the input.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Memory that the packed weights take, in bytes.
    pub fn bytes(&self) -> usize {
        self.b.bytes()
    }

    /// The shape that `input` is turned into.
    pub fn output_shape(&self, input: ImageShape) -> Result<ImageShape, KernelError> {
        expect("convolution: input channels", self.channels, input.channels)?;
        let ConvGeometry { stride, padding, upsample } = self.geometry;
        let scale = if upsample { 2 } else { 1 };
        let outputs = |pixels: usize, padding: usize, kernel: usize| {
            (pixels * scale + padding)
                .checked_sub(kernel)
                .map(|room| room / stride + 1)
                .ok_or(KernelError::Unsupported("an image smaller than the convolution's window"))
        };
        Ok(ImageShape {
            images: input.images,
            height: outputs(input.height, padding.top + padding.bottom, self.kernel[0])?,
            width: outputs(input.width, padding.left + padding.right, self.kernel[1])?,
            channels: self.outputs(),
        })
    }

    /// Computes `output`, of [`output_shape`](Self::output_shape), from `input`; both channels-last and
    /// contiguous. An image's result does not depend on the other images.
    pub fn forward<I: Element, O: Element>(
        &self,
        input: &[I],
        shape: ImageShape,
        output: &mut [O],
        epilogue: ConvEpilogue<'_, O>,
    ) -> Result<(), KernelError> {
        let ConvEpilogue { per_image, activation, residual } = epilogue;
        self.run(I::values(input), shape, O::output(output, residual), per_image, activation)
    }

    fn run(
        &self,
        input: Values<'_>,
        shape: ImageShape,
        output: Output<'_>,
        per_image: Option<&[f32]>,
        activation: Activation,
    ) -> Result<(), KernelError> {
        let to = self.output_shape(shape)?;
        expect("convolution: input values", shape.len(), input.len())?;
        expect("convolution: output values", to.len(), output.len())?;
        output.check("convolution: residual values")?;
        if let Some(per_image) = per_image {
            expect("convolution: per-image values", to.images * to.channels, per_image.len())?;
        }
        crate::work::count(to.len() * self.channels * self.kernel[0] * self.kernel[1]);
        let pixels = to.height * to.width;
        let per_image = per_image.map(|values| (values, pixels));
        let (geometry, kernel, stride) = (self.geometry, self.kernel, to.channels);
        typed!(output, values, residual => {
            let output = values.as_mut_ptr();
            let target = Target { output, stride, residual, per_image, activation, gated: false };
            typed!(input, input => if kernel == [1, 1] && geometry == ConvGeometry::padded(0) {
                let source = Dense { data: input, rows: shape.images * pixels, depth: self.channels };
                // SAFETY: the lengths were checked above.
                unsafe { multiply(&source, &self.b, &target) };
            } else {
                let ConvGeometry { padding, upsample, .. } = geometry;
                let images = Images { input, shape, to, padding, upsample };
                // SAFETY: the lengths were checked above, the window by `by_winograd`.
                if self.by_winograd(to) && unsafe { winograd::convolve(&images, &self.b, &target) } {
                    return Ok(());
                }
                let source = Windows { input, shape, to, kernel, geometry };
                // SAFETY: the lengths were checked above.
                unsafe { multiply(&source, &self.b, &target) };
            });
        });
        Ok(())
    }
}

/// The pixels under a convolution's window as rows of a matrix: `depth = (window row, window column, channel)`.
struct Windows<'a, T> {
    input: &'a [T],
    shape: ImageShape,
    to: ImageShape,
    kernel: [usize; 2],
    geometry: ConvGeometry,
}

/// An output pixel: its image's first value and its window's corner, which may lie in the padding.
#[derive(Clone, Copy)]
struct Corner<T> {
    image: *const T,
    y: isize,
    x: isize,
}

impl<T> Windows<'_, T> {
    /// Size of the image that the window moves over.
    #[inline(always)]
    fn extent(&self) -> (isize, isize) {
        let scale = if self.geometry.upsample { 2 } else { 1 };
        ((self.shape.height * scale) as isize, (self.shape.width * scale) as isize)
    }
}

// SAFETY: `forward` checks the input's length; `run` tests each pixel against the image's extent.
unsafe impl<T: Lanes> Gather for Windows<'_, T> {
    type Item = T;
    type Row = Corner<T>;

    fn rows(&self) -> usize {
        self.to.images * self.to.height * self.to.width
    }

    #[inline(always)]
    fn row(&self, row: usize) -> Corner<T> {
        let (pixels, stride) = (self.to.height * self.to.width, self.geometry.stride);
        let (image, pixel) = (row / pixels, row % pixels);
        let (y, x) = (pixel / self.to.width * stride, pixel % self.to.width * stride);
        let image = self.input.as_ptr().wrapping_add(image * self.shape.len() / self.shape.images);
        Corner {
            image,
            y: y as isize - self.geometry.padding.top as isize,
            x: x as isize - self.geometry.padding.left as isize,
        }
    }

    #[inline(always)]
    fn run(&self, corner: Corner<T>, k: usize) -> (*const T, usize) {
        let channels = self.shape.channels;
        let (tap, channel) = (k / channels, k % channels);
        let (ky, kx) = (tap / self.kernel[1], tap % self.kernel[1]);
        let (height, width) = self.extent();
        let (y, x) = (corner.y + ky as isize, corner.x + kx as isize);
        let rest_of_line = (self.kernel[1] - kx) * channels - channel;
        if y < 0 || y >= height || x >= width {
            return (std::ptr::null(), rest_of_line);
        }
        if x < 0 {
            let outside = ((-x) as usize).min(self.kernel[1] - kx);
            return (std::ptr::null(), outside * channels - channel);
        }
        let scale = if self.geometry.upsample { 1 } else { 0 };
        let (row, column) = ((y >> scale) as usize, (x >> scale) as usize);
        let pixel = corner.image.wrapping_add((row * self.shape.width + column) * channels + channel);
        // Neighbouring pixels of a line follow each other in memory, unless each is read twice.
        let pixels = if self.geometry.upsample { 1 } else { ((width - x) as usize).min(self.kernel[1] - kx) };
        (pixel, pixels * channels - channel)
    }
}

// SAFETY: the pointers are only followed within `Windows`, whose input is shared for as long.
unsafe impl<T: Sync> Sync for Corner<T> {}
