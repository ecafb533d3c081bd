//! Every kernel on the same batch of images, for laws that all of them keep.

use std::ops::Range;

use sd_kernels::{
    Activation, AttentionShape, ConvEpilogue, ConvGeometry, Element, Epilogue, ImageShape, Kernels, Mask,
    NormParams, PackedConv2d, PackedLinear, Padding, Precision, Rows,
};

use crate::support::{cast, values, weights};

/// What a value of an image reaches in the output of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Reach {
    /// Itself.
    Value,
    /// Its pixel.
    Pixel,
    /// The pixels whose window covers it; by Winograd's products, maybe the rest of their tiles.
    Window { geometry: ConvGeometry, kernel: usize, winograd: bool },
    /// Its image.
    Image,
}

/// A kernel's name and its output, (images, pixels, channels).
pub(crate) struct Run<T> {
    pub(crate) name: &'static str,
    pub(crate) reach: Reach,
    /// Input channels whose bad values must show: attention reads some channels only, and an infinite key may lose
    /// against all others.
    pub(crate) shows: Range<usize>,
    pub(crate) output: Vec<T>,
    /// Size of its images.
    pub(crate) size: [usize; 2],
    pub(crate) channels: usize,
}

/// All kernels with weights for images of so many channels; halves of the channels are values and gates.
pub(crate) struct Everything {
    kernels: Kernels,
    channels: usize,
    linear: PackedLinear,
    gated: PackedLinear,
    convs: Vec<(&'static str, Reach, PackedConv2d)>,
    /// Keys of a cross attention, the same for every image.
    keys: Vec<f32>,
    norm: [Vec<f32>; 2],
}

const KEYS: usize = 77;

impl Everything {
    /// `half` is half the channels.
    pub(crate) fn new(kernels: Kernels, half: usize, precision: Precision, seed: u64) -> Self {
        let channels = 2 * half;
        let weight = weights(seed, channels * channels * 9, channels * 9);
        let small = &weight[..channels * channels];
        let pack = |new: fn(_, _, _, _, _, _) -> _, outputs| {
            new(kernels, small.into(), outputs, channels, None, precision)
        };
        let same = ConvGeometry::padded(1);
        let convs = [
            ("conv 3x3", 3, same),
            ("conv 1x1", 1, ConvGeometry::padded(0)),
            ("conv stride 2", 3, ConvGeometry { stride: 2, ..same }),
            (
                "conv right and bottom",
                3,
                ConvGeometry { stride: 2, padding: Padding::right_bottom(1), upsample: false },
            ),
            ("conv upsample", 3, ConvGeometry { upsample: true, ..same }),
        ];
        let convs = convs.into_iter().flat_map(|(name, kernel, geometry)| {
            let shape = [channels, channels, kernel, kernel];
            let weight = &weight[..channels * channels * kernel * kernel];
            let conv = PackedConv2d::new(kernels, weight.into(), shape, None, geometry, precision).unwrap();
            // Both ways to compute a convolution, where there are two.
            let ways: &[bool] = if kernel == 3 && geometry.stride == 1 { &[false, true] } else { &[false] };
            let reach = move |winograd| Reach::Window { geometry, kernel, winograd };
            ways.iter().map(move |way| (name, reach(*way), conv.with_winograd(*way))).collect::<Vec<_>>()
        });
        Self {
            kernels,
            channels,
            linear: pack(PackedLinear::new, channels).unwrap(),
            gated: pack(PackedLinear::gated, half).unwrap(),
            convs: convs.collect(),
            keys: values(seed + 1, KEYS * channels),
            norm: [values(seed + 2, channels), values(seed + 3, channels)],
        }
    }

    /// Runs every kernel on `input`, (images, height, width, channels), with outputs that begin `shift` values into
    /// their memory.
    pub(crate) fn run<T: Element + Default>(
        &self,
        input: &[T],
        images: usize,
        size: [usize; 2],
        shift: usize,
    ) -> Vec<Run<T>> {
        let (channels, half) = (self.channels, self.channels / 2);
        let [height, width] = size;
        let (pixels, rows) = (height * width, images * height * width);
        let mut runs = Vec::new();
        let mut add = |name, reach, size: [usize; 2], channels, run: &dyn Fn(&mut [T])| {
            let mut output = vec![T::from_f32(f32::NAN); shift + images * size[0] * size[1] * channels];
            run(&mut output[shift..]);
            let output = output.split_off(shift);
            let shows = match name {
                "self attention" => half..half + channels,
                "cross attention" => 0..channels,
                _ => 0..self.channels,
            };
            runs.push(Run { name, reach, shows, output, size, channels });
        };
        add("linear", Reach::Pixel, size, channels, &|output| {
            // The input is the residual too.
            let epilogue = Epilogue { residual: Some(input), ..Default::default() };
            self.linear.forward(input, rows, output, epilogue).unwrap();
        });
        add("gated linear", Reach::Pixel, size, half, &|output| {
            let epilogue = Epilogue { activation: Activation::Gelu, residual: None };
            self.gated.forward(input, rows, output, epilogue).unwrap();
        });
        let shape = ImageShape { images, height, width, channels };
        for (name, reach, conv) in &self.convs {
            let Ok(to) = conv.output_shape(shape) else { continue };
            add(name, *reach, [to.height, to.width], channels, &|output| {
                conv.forward(input, shape, output, ConvEpilogue::default()).unwrap();
            });
        }
        // Two heads, of queries that lie between gates.
        let head_dim = half.div_ceil(2);
        let view = |data| Rows { data, stride: channels };
        let attention =
            AttentionShape { batch: images, heads: half / head_dim, queries: pixels, keys: pixels, head_dim };
        let attended = attention.heads * head_dim;
        add("self attention", Reach::Image, size, attended, &|output| {
            let [q, k, v] = [view(input), view(&input[half / 2..]), view(&input[half..])];
            self.kernels.attention(attention, q, k, v, 0.3, Mask::None, output).unwrap();
        });
        add("cross attention", Reach::Pixel, size, attended, &|output| {
            let keys = cast::<T>(&self.keys).repeat(images);
            let shape = AttentionShape { keys: KEYS, ..attention };
            let keys = Rows { data: &keys[..], stride: channels };
            self.kernels.attention(shape, view(input), keys, keys, 0.3, Mask::None, output).unwrap();
        });
        let params = NormParams { weight: &self.norm[0], bias: &self.norm[1], eps: 1e-5 };
        add("group norm", Reach::Image, size, channels, &|output| {
            self.kernels.group_norm(input, [images, pixels, channels], 1, params, true, output).unwrap();
        });
        add("layer norm", Reach::Pixel, size, channels, &|output| {
            self.kernels.layer_norm(input, channels, params, output).unwrap();
        });
        add("softmax", Reach::Pixel, size, channels, &|output| {
            self.kernels.softmax(input, channels, output).unwrap();
        });
        add("activation", Reach::Value, size, channels, &|output| {
            output.copy_from_slice(input);
            self.kernels.activate(Activation::Silu, output);
        });
        add("gate", Reach::Pixel, size, half, &|output| {
            self.kernels.gate(Activation::GeluTanh, input, half, output).unwrap();
        });
        add("conversion", Reach::Value, size, channels, &|output| {
            self.kernels.convert(input, output).unwrap();
        });
        runs
    }
}

impl Reach {
    /// Whether a value at pixel `at` of an image of `size` reaches output pixel `pixel`; none if it may or may not.
    pub(crate) fn covers(self, at: [usize; 2], pixel: [usize; 2], size: [usize; 2]) -> Option<bool> {
        match self {
            Self::Value | Self::Pixel => Some(at == pixel),
            Self::Image => Some(true),
            Self::Window { geometry, kernel, winograd } => {
                let scale = if geometry.upsample { 2 } else { 1 };
                let padding = [geometry.padding.top, geometry.padding.left];
                // Whether a window of `taps` that begins at output `first` reads the pixel.
                let reads = |i: usize, first: usize, taps: usize| {
                    (0..taps).any(|tap| {
                        let read = (first * geometry.stride + tap).checked_sub(padding[i]);
                        read.is_some_and(|read| read < size[i] * scale && read / scale == at[i])
                    })
                };
                if (0..2).all(|i| reads(i, pixel[i], kernel)) {
                    return Some(true);
                }
                // A tile of 4x4 outputs reads 6x6 pixels.
                let tile = winograd && (0..2).all(|i| reads(i, pixel[i] / 4 * 4, 6));
                if tile { None } else { Some(false) }
            }
        }
    }
}
