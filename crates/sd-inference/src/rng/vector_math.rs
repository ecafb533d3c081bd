//! Logarithm, sine and cosine as torch's vector path computes them.
//!
//! torch makes normals of 16 values or more with the single-precision polynomials of the Cephes library (Moshier) and
//! fused multiply-adds, whose results differ from exact ones in the last digits. The order of operations here is
//! theirs, so that the normals are the same bits; and because only sums, products and roots are involved, they are the
//! same bits on every machine.

use std::f32::consts::FRAC_1_SQRT_2;

/// ln 2 in two parts, the first of few bits.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// Minus pi / 4 in three parts.
const MINUS_FRAC_PI_4: [f32; 3] = [-0.785_156_25, -2.418_756_5e-4, -3.774_895e-8];
/// 4 / pi.
const FRAC_4_PI: f32 = 1.273_239_5;

const LN: [f32; 9] = [
    7.037_683_6e-2,
    -1.151_461e-1,
    1.167_699_84e-1,
    -1.242_014_1e-1,
    1.424_932_3e-1,
    -1.666_805_8e-1,
    2.000_071_4e-1,
    -2.499_999_4e-1,
    3.333_333e-1,
];
const COS: [f32; 3] = [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2];
const SIN: [f32; 3] = [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1];

/// Horner's rule with one rounding per coefficient.
fn polynomial<const N: usize>(coefficients: [f32; N], x: f32) -> f32 {
    coefficients.into_iter().reduce(|sum, coefficient| sum.mul_add(x, coefficient)).unwrap_or(0.0)
}

/// The natural logarithm of a positive normal number.
pub(super) fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    let mut exponent = (bits >> 23) as f32 - 126.0;
    let mantissa = f32::from_bits((bits & 0x007f_ffff) | 0.5f32.to_bits());
    // the mantissa is brought to [sqrt(1/2), sqrt(2)), and 1 is taken off
    let mut x = mantissa - 1.0;
    if mantissa < FRAC_1_SQRT_2 {
        exponent -= 1.0;
        x += mantissa;
    }
    let square = x * x;
    let tail = (polynomial(LN, x) * x).mul_add(square, exponent * LN_2[1]);
    exponent.mul_add(LN_2[0], x + square.mul_add(-0.5, tail))
}

/// Sine and cosine of an angle from 0 to a few turns.
pub(super) fn sin_cos(angle: f32) -> (f32, f32) {
    // octants, counted in pairs so that the rest lies in [-pi/4, pi/4]
    let octant = ((angle * FRAC_4_PI) as i32 + 1) & !1;
    let rest = MINUS_FRAC_PI_4.into_iter().fold(angle, |rest, part| (octant as f32).mul_add(part, rest));
    let square = rest * rest;
    let cos = (polynomial(COS, square) * square).mul_add(square, -(square * 0.5)) + 1.0;
    let sin = (polynomial(SIN, square) * square).mul_add(rest, rest);
    match octant & 6 {
        0 => (sin, cos),
        2 => (cos, -sin),
        4 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_what_their_names_say_to_f32_precision() {
        for i in 0..10_000 {
            let part = i as f32 / 10_000.0;
            let (sin, cos) = sin_cos(part * std::f32::consts::TAU);
            let (exact_sin, exact_cos) = f64::from(part * std::f32::consts::TAU).sin_cos();
            assert!((f64::from(sin) - exact_sin).abs() < 2e-7 && (f64::from(cos) - exact_cos).abs() < 2e-7);
            let log = ln(1.0 - part);
            assert!((f64::from(log) - f64::from(1.0 - part).ln()).abs() < 1e-6, "ln {}", 1.0 - part);
        }
        assert_eq!(ln(1.0), 0.0);
    }
}
