//! How much is computed, and how much could be.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::active;
use crate::simd::{Kernel, Simd};

static WORK: AtomicU64 = AtomicU64::new(0);

/// The floating-point operations of all products, convolutions and attentions of this process so far.
///
/// It is the work that their shapes ask for, whatever the kernels do to save some: two operations for each
/// multiplication of a product or of a convolution's windows, those over padding and doubled pixels too, and
/// for attention those of both products without regard to the mask. Norms and activations are not counted.
///
/// ```
/// use sd_kernels::{Epilogue, PackedLinear, Precision, active, measure_peak, work};
/// # let (weight, input, mut output) = (vec![0.1f32; 64 * 32], vec![1f32; 10 * 32], vec![0f32; 10 * 64]);
/// let layer = PackedLinear::new(active(), (&weight[..]).into(), 64, 32, None, Precision::F32)?;
/// let (before, start) = (work(), std::time::Instant::now());
/// layer.forward(&input, 10, &mut output, Epilogue::default())?;
/// let done = work() - before;
/// let rate = done as f64 / start.elapsed().as_secs_f64();
/// println!("{done} operations at {:.1} % of the peak", 100.0 * rate / measure_peak());
/// assert_eq!(done, 2 * 10 * 32 * 64);
/// # Ok::<(), sd_kernels::KernelError>(())
/// ```
pub fn work() -> u64 {
    WORK.load(Ordering::Relaxed)
}

/// Counts the two operations of each of so many multiplications.
pub(crate) fn count(multiplications: usize) {
    WORK.fetch_add(2 * multiplications as u64, Ordering::Relaxed);
}

/// The f32 operations that all threads of rayon's current pool do in a second when nothing but the arithmetic
/// holds them up: fused multiplications and additions of [`active`]'s vectors, all in registers.
///
/// Takes a tenth of a second; the best of a few runs, so that other programs disturb little. Matrix tiles,
/// which multiply bf16, are faster than this.
pub fn measure_peak() -> f64 {
    const REPEATS: usize = 10;
    let kernels = active();
    let operations = 2 * ROUNDS * CHAINS * kernels.lanes() * rayon::current_num_threads();
    let rate = || {
        let start = Instant::now();
        rayon::broadcast(|_| black_box(kernels.dispatch(Chains)));
        operations as f64 / start.elapsed().as_secs_f64()
    };
    (0..REPEATS).map(|_| rate()).fold(0.0, f64::max)
}

/// Sums that do not wait for each other: enough to fill two units that each take five cycles, few enough for
/// sixteen registers.
const CHAINS: usize = 12;
const ROUNDS: usize = 3_000_000;

/// Runs `CHAINS` sums over `ROUNDS` fused operations each.
struct Chains;

impl Kernel for Chains {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        // x = a x + b tends to 1: no sum overflows or becomes so small that the processor slows down.
        let (a, b) = (s.splat(black_box(0.75)), s.splat(black_box(0.25)));
        let mut sums = [a; CHAINS];
        for (i, sum) in sums.iter_mut().enumerate() {
            // Sums that begin alike would be computed once.
            *sum = s.splat(black_box(i as f32));
        }
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = s.fma(*sum, a, b);
            }
        }
        sums.iter().map(|sum| s.sum(*sum)).sum()
    }
}
