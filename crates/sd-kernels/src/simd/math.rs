//! Vectorised elementary functions, a few units in the last place from exact in f32.

use super::Simd;

/// `e^x`: overflow to infinity, underflow to zero, NaN to NaN; within 2 ulp.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // `max` and `min` return their second argument where one is NaN.
    let x = s.min(s.splat(89.0), s.max(s.splat(-104.0), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts, the first with trailing zeros so that n * high is exact.
    let r = s.fma(n, s.splat(-0.693_359_4), x);
    let r = s.fma(n, s.splat(2.121_944_4e-4), r);
    let mut p = s.splat(1.987_569_2e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = s.fma(p, r, s.splat(c));
    }
    let y = s.add(s.fma(s.mul(r, r), p, r), s.splat(1.0));
    s.ldexp(y, n)
}

/// `2^x` within 2 ulp, for softmax: overflow, underflow and NaN as [`exp`].
#[inline(always)]
pub(crate) fn exp2<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.min(s.splat(150.0), s.max(s.splat(-160.0), x));
    let n = s.round(x);
    let r = s.sub(x, n);
    let mut p = s.splat(1.327_647_2e-3);
    for c in [9.675_541e-3, 5.550_713e-2, 2.402_212e-1, 6.931_469_4e-1, 1.000_000_1] {
        p = s.fma(p, r, s.splat(c));
    }
    s.ldexp(p, n)
}

/// `2^x` within 2 ulp for `x` of at most zero: exactly zero at -127 and below, NaN to NaN. Some operations shorter
/// than [`exp2`]: softmax makes as many as it has scores.
#[inline(always)]
pub(crate) fn exp2_of_negative<S: Simd>(s: S, x: S::V) -> S::V {
    /// What rounds to an integer when it is added: the last bit of its mantissa is worth one.
    const ROUND: f32 = 12_582_912.0;
    let x = s.max(s.splat(-127.0), x);
    let n = s.add(x, s.splat(ROUND));
    let r = s.sub(x, s.sub(n, s.splat(ROUND)));
    let mut p = s.splat(1.326_472_7e-3);
    for c in [9.671_513e-3, 5.550_733_6e-2, 2.402_224_2e-1, 6.931_470_6e-1, 1.0] {
        p = s.fma(p, r, s.splat(c));
    }
    s.add_exponent(p, n)
}

/// `2^x` within 1e-4 relative, for weights that are rounded to bf16: as [`exp2`] otherwise.
#[inline(always)]
pub(crate) fn exp2_rough<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.min(s.splat(150.0), s.max(s.splat(-160.0), x));
    let n = s.round(x);
    let r = s.sub(x, n);
    let mut p = s.splat(5.517_167e-2);
    for c in [2.426_111_3e-1, 6.932_61e-1, 9.999_280_6e-1] {
        p = s.fma(p, r, s.splat(c));
    }
    s.ldexp(p, n)
}

/// The error function, within 5e-7.
#[inline(always)]
pub(crate) fn erf<S: Simd>(s: S, x: S::V) -> S::V {
    // A rational minimax approximation in x^2; beyond 4 the result is 1 in f32.
    let x = s.min(s.splat(4.0), s.max(s.splat(-4.0), x));
    let x2 = s.mul(x, x);
    let mut p = s.splat(-2.726_142_3e-10);
    for c in [2.770_681_4e-8, -2.101_024e-6, -5.692_506_5e-5, -7.349_906_3e-4, -2.954_6e-3, -1.609_603_3e-2] {
        p = s.fma(p, x2, s.splat(c));
    }
    let mut q = s.splat(-1.456_607_2e-5);
    for c in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2] {
        q = s.fma(q, x2, s.splat(c));
    }
    // At 4 the quotient is just short of 1, which GELU would multiply by large inputs: scale it beyond and clamp.
    let y = s.mul(s.div(s.mul(x, p), q), s.splat(1.0 + 2.0 * f32::EPSILON));
    s.min(s.splat(1.0), s.max(s.splat(-1.0), y))
}

/// `x * sigmoid(scale * x)`: SiLU at scale 1.
#[inline(always)]
fn swish<S: Simd>(s: S, x: S::V, scale: f32) -> S::V {
    s.div(x, s.add(s.splat(1.0), exp(s, s.mul(x, s.splat(-scale)))))
}

/// `x * sigmoid(x)`.
#[inline(always)]
pub(crate) fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    swish(s, x, 1.0)
}

/// `x * sigmoid(1.702 x)`, as the first CLIP has it.
#[inline(always)]
pub(crate) fn quick_gelu<S: Simd>(s: S, x: S::V) -> S::V {
    swish(s, x, 1.702)
}

/// `x * Phi(x)` with the exact error function.
#[inline(always)]
pub(crate) fn gelu_erf<S: Simd>(s: S, x: S::V) -> S::V {
    let half = s.mul(x, s.splat(0.5));
    s.fma(half, erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2))), half)
}

/// The tanh approximation of GELU.
#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd>(s: S, x: S::V) -> S::V {
    // 0.5 (1 + tanh u) = sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3).
    let x2 = s.mul(x, x);
    let inner = s.mul(x, s.fma(x2, s.splat(0.044_715), s.splat(1.0)));
    let minus_2u = s.mul(inner, s.splat(-1.595_769));
    s.div(x, s.add(s.splat(1.0), exp(s, minus_2u)))
}

#[cfg(test)]
mod tests {
    use super::super::{Kernel, Simd, Vectors};
    use super::exp2_of_negative;

    /// Applies [`exp2_of_negative`] in place; a multiple of 16 values.
    struct Exp2<'a>(&'a mut [f32]);

    impl Kernel for Exp2<'_> {
        type Out = ();
        #[inline(always)]
        #[allow(unsafe_code)]
        fn run<S: Simd>(self, s: S) {
            for chunk in self.0.chunks_exact_mut(S::LANES) {
                // SAFETY: the chunk is one vector long.
                unsafe { s.store(chunk.as_mut_ptr(), exp2_of_negative(s, s.load(chunk.as_ptr()))) };
            }
        }
    }

    fn exp2(vectors: Vectors, values: &[f32]) -> Vec<f32> {
        let mut out = values.to_vec();
        out.resize(values.len().next_multiple_of(16), 0.0);
        vectors.dispatch(Exp2(&mut out));
        out.truncate(values.len());
        out
    }

    #[test]
    fn powers_of_two_are_near_and_end_in_zero() {
        let values: Vec<f32> = (0..126_000).map(|i| i as f32 * -1e-3).collect();
        for vectors in Vectors::available() {
            for (x, y) in values.iter().zip(exp2(vectors, &values)) {
                let expected = f64::from(*x).exp2();
                let error = (f64::from(y) - expected).abs() / expected;
                assert!(error <= 2.0 * f64::from(f32::EPSILON), "{vectors:?}: 2^{x} gave {y}");
            }
            let ends = exp2(vectors, &[0.0, -127.0, -1e30, f32::NEG_INFINITY]);
            assert_eq!(ends, [1.0, 0.0, 0.0, 0.0], "{vectors:?}");
            // Between the least normal number and zero nothing grows.
            let small = exp2(vectors, &[-126.0, -126.4, -126.6, -126.99]);
            assert!(small.iter().all(|y| (0.0..=f32::MIN_POSITIVE).contains(y)), "{vectors:?}: {small:?}");
            assert!(exp2(vectors, &[f32::NAN])[0].is_nan(), "{vectors:?}");
        }
    }
}
