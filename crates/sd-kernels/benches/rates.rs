//! Prints the rate of each kernel on Stable Diffusion 1.5's shapes: the best of a few short runs, so that
//! other work on the machine disturbs little.
//!
//! `cargo bench -p sd-kernels --bench rates -- [filter] [threads]`; `SD_KERNELS` chooses one set of all.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::{Duration, Instant};

/// Time that this thread has run: unlike the clock, it does not count what other programs take.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(not(target_os = "linux"))]
fn thread_time() -> Duration {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}

use half::bf16;
use sd_kernels::{
    Activation, AttentionShape, ConvEpilogue, ConvGeometry, Element, Epilogue, ImageShape, Kernels, Mask,
    NormParams, PackedConv2d, PackedLinear, Precision, Rows,
};

/// The best of several runs.
fn best(mut run: impl FnMut()) -> Duration {
    run();
    let start = Instant::now();
    let mut best = Duration::MAX;
    for i in 0.. {
        if i >= 3 && start.elapsed() > Duration::from_millis(600) {
            break;
        }
        // With one thread its own time tells more than the clock on a busy machine.
        let (wall, own) = (Instant::now(), thread_time());
        run();
        let own = thread_time() - own;
        best = best.min(if rayon::current_num_threads() == 1 { own } else { wall.elapsed() });
    }
    best
}

fn values<T: Element>(len: usize) -> Vec<T> {
    (0..len).map(|i| T::from_f32((i * 7919 % 1021) as f32 / 1021.0 - 0.5)).collect()
}

struct Rates {
    kernels: Kernels,
    filter: String,
}

impl Rates {
    fn wanted(&self, name: &str) -> bool {
        format!("{} {name}", self.kernels.set()).contains(&self.filter)
    }

    fn show(&self, name: &str, work: f64, unit: &str, run: impl FnMut()) {
        if self.wanted(name) {
            let name = format!("{} {name}", self.kernels.set());
            let time = best(run).as_secs_f64();
            println!("{name:58} {:9.3} ms {:8.1} {unit}", time * 1e3, work / time / 1e9);
        }
    }

    /// A convolution by window and, where that differs, by Winograd's products; the rate counts the window's.
    fn conv<T: Element>(&self, precision: Precision, [images, c, o, size, taps]: [usize; 5], upsample: bool) {
        let name = format!(
            "conv {taps}x{taps} {c}->{o} at {size} x{images}{} {precision:?}",
            if upsample { " up" } else { "" }
        );
        let kinds: &[_] = if taps == 3 { &[(" window", false), (" winograd", true)] } else { &[("", false)] };
        if !kinds.iter().any(|(kind, _)| self.wanted(&format!("{name}{kind}"))) {
            return;
        }
        let weight = values::<f32>(o * c * taps * taps);
        let geometry = ConvGeometry { upsample, ..ConvGeometry::padded(taps / 2) };
        let shape = [o, c, taps, taps];
        let conv =
            PackedConv2d::new(self.kernels, (&weight[..]).into(), shape, None, geometry, precision).unwrap();
        let shape = ImageShape { images, height: size, width: size, channels: c };
        let input = values::<T>(shape.len());
        let mut output = vec![T::from_f32(0.0); conv.output_shape(shape).unwrap().len()];
        let flops = (2 * output.len() * c * taps * taps) as f64;
        for (kind, winograd) in kinds {
            let conv = conv.with_winograd(*winograd);
            self.show(&format!("{name}{kind}"), flops, "GFLOP/s", || {
                conv.forward(&input, shape, &mut output, ConvEpilogue::default()).unwrap();
            });
        }
    }

    fn linear<T: Element>(&self, precision: Precision, [rows, k, n]: [usize; 3], gated: bool) {
        let name = format!("linear {rows} rows {k}->{n}{} {precision:?}", if gated { " geglu" } else { "" });
        if !self.wanted(&name) {
            return;
        }
        let weight_rows = if gated { 2 * n } else { n };
        let weight = values::<f32>(weight_rows * k);
        let pack = if gated { PackedLinear::gated } else { PackedLinear::new };
        let layer = pack(self.kernels, (&weight[..]).into(), n, k, None, precision).unwrap();
        let input = values::<T>(rows * k);
        let mut output = vec![T::from_f32(0.0); rows * n];
        let activation = if gated { Activation::Gelu } else { Activation::None };
        self.show(&name, (2 * rows * k * weight_rows) as f64, "GFLOP/s", || {
            layer.forward(&input, rows, &mut output, Epilogue { activation, residual: None }).unwrap();
        });
    }

    fn attention<T: Element>(&self, [batch, heads, queries, keys, head_dim]: [usize; 5]) {
        let shape = AttentionShape { batch, heads, queries, keys, head_dim };
        let kind = std::any::type_name::<T>().rsplit(':').next().unwrap_or_default();
        let name = format!("attention {batch}x{heads} {queries}x{keys} d{head_dim} {kind}");
        let width = heads * head_dim;
        let (q, k) = (values::<T>(batch * queries * width), values::<T>(batch * keys * width));
        let (q, k) = (Rows::contiguous(&q, width), Rows::contiguous(&k, width));
        let mut output = vec![T::from_f32(0.0); batch * queries * width];
        let flops = (4 * batch * queries * keys * width) as f64;
        self.show(&name, flops, "GFLOP/s", || {
            self.kernels.attention(shape, q, k, k, 0.15, Mask::None, &mut output).unwrap();
        });
    }

    fn norms<T: Element>(&self) {
        let kind = std::any::type_name::<T>().rsplit(':').next().unwrap_or_default();
        let (weight, bias) = (vec![1f32; 320], vec![0f32; 320]);
        let params = NormParams { weight: &weight, bias: &bias, eps: 1e-5 };
        let input = values::<T>(2 * 4096 * 320);
        let mut output = input.clone();
        let bytes = (2 * size_of_val(&input[..])) as f64;
        self.show(&format!("group norm + SiLU 320 at 64 x2 {kind}"), bytes, "GB/s", || {
            self.kernels.group_norm(&input, [2, 4096, 320], 32, params, true, &mut output).unwrap();
        });
        self.show(&format!("layer norm 8192 x 320 {kind}"), bytes, "GB/s", || {
            self.kernels.layer_norm(&input, 320, params, &mut output).unwrap();
        });
    }

    fn all(&self) {
        let f32 = Precision::F32;
        let bf16 = Precision::Bf16;
        for (shape, upsample) in [
            ([2, 320, 320, 64, 3], false),
            ([2, 960, 320, 64, 3], false),
            ([2, 640, 640, 32, 3], false),
            ([2, 1280, 1280, 16, 3], false),
            ([2, 2560, 1280, 16, 3], false),
            ([2, 1280, 1280, 8, 3], false),
            ([1, 128, 128, 512, 3], false),
            ([1, 256, 256, 256, 3], false),
            ([1, 512, 512, 128, 3], false),
            ([1, 512, 512, 64, 3], false),
            ([2, 960, 320, 64, 1], false),
            ([2, 640, 640, 32, 3], true),
            ([1, 256, 256, 256, 3], true),
        ] {
            self.conv::<f32>(f32, shape, upsample);
            self.conv::<bf16>(bf16, shape, upsample);
        }
        for (shape, gated) in [
            ([8192, 320, 320], false),
            ([8192, 320, 1280], true),
            ([8192, 1280, 320], false),
            ([2048, 640, 640], false),
            ([512, 1280, 1280], false),
            ([154, 768, 3072], false),
            ([2, 1280, 1280], false),
        ] {
            self.linear::<f32>(f32, shape, gated);
            self.linear::<bf16>(bf16, shape, gated);
        }
        for shape in [
            [2, 8, 4096, 4096, 40],
            [2, 8, 4096, 77, 40],
            [2, 8, 1024, 1024, 80],
            [2, 8, 256, 256, 160],
            [2, 10, 1024, 1024, 64],
        ] {
            self.attention::<f32>(shape);
            self.attention::<bf16>(shape);
        }
        self.norms::<f32>();
        self.norms::<bf16>();
    }
}

fn main() {
    // `cargo bench` adds flags of its own.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let filter = arguments.next().unwrap_or_default();
    let threads = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    println!("{}\nthreads: {threads}", sd_kernels::report());
    let chosen = std::env::var_os("SD_KERNELS").map(|_| vec![sd_kernels::active()]);
    for kernels in chosen.unwrap_or_else(Kernels::available) {
        pool.install(|| Rates { kernels, filter: filter.clone() }.all());
    }
}
