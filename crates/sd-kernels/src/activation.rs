//! Elementwise functions.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use crate::element::{Element, Lanes, typed};
use crate::error::expect;
use crate::parallel::{self, Shared};
use crate::simd::{Kernel, Simd, math};
use crate::{KernelError, Kernels};

/// A nonlinearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Activation {
    /// The identity.
    #[default]
    None,
    /// `x * sigmoid(x)`, also called swish.
    Silu,
    /// `x * Phi(x)` with the exact error function.
    Gelu,
    /// GELU by its tanh approximation.
    GeluTanh,
    /// `x * sigmoid(1.702 x)`, as in OpenAI's CLIP.
    QuickGelu,
}

/// A nonlinearity as a type, so that it inlines into loops.
pub(crate) trait Map {
    fn map<S: Simd>(s: S, x: S::V) -> S::V;
}

macro_rules! maps {
    ($($name:ident => $function:expr),* $(,)?) => {$(
        pub(crate) struct $name;
        impl Map for $name {
            #[inline(always)]
            fn map<S: Simd>(s: S, x: S::V) -> S::V {
                $function(s, x)
            }
        }
    )*};
}

maps! {
    Silu => math::silu,
    Gelu => math::gelu_erf,
    GeluTanh => math::gelu_tanh,
    QuickGelu => math::quick_gelu,
}

pub(crate) struct Identity;
impl Map for Identity {
    #[inline(always)]
    fn map<S: Simd>(_: S, x: S::V) -> S::V {
        x
    }
}

/// Values that one task goes through.
const CHUNK: usize = 16 * 1024;

impl Kernels {
    /// Applies `activation` to each value in place.
    pub fn activate<T: Element>(self, activation: Activation, values: &mut [T]) {
        typed!(T::output(values, None), values, _ => self.activate_typed(activation, values));
    }

    fn activate_typed<T: Lanes>(self, activation: Activation, values: &mut [T]) {
        let data = Shared(values.as_mut_ptr());
        let len = values.len();
        parallel::for_each(len.div_ceil(CHUNK), |task| {
            let start = task * CHUNK;
            // SAFETY: the chunks lie within `values` and do not overlap.
            let chunk = unsafe { std::slice::from_raw_parts_mut(data.at(start), CHUNK.min(len - start)) };
            self.dispatch(Activate { activation, chunk });
        });
    }

    /// Gated activation: `output[r, j] = input[r, j] * activation(input[r, width + j])`.
    ///
    /// `input` is (rows, 2 * width) and `output` (rows, width); with [`Activation::Gelu`] this is GEGLU.
    pub fn gate<I: Element, O: Element>(
        self,
        activation: Activation,
        input: &[I],
        width: usize,
        output: &mut [O],
    ) -> Result<(), KernelError> {
        typed!(O::output(output, None), output, _ => {
            typed!(I::values(input), input => self.gate_typed(activation, input, width, output))
        })
    }

    fn gate_typed<I: Lanes, O: Lanes>(
        self,
        activation: Activation,
        input: &[I],
        width: usize,
        output: &mut [O],
    ) -> Result<(), KernelError> {
        let rows = output.len().checked_div(width).unwrap_or(0);
        expect("gate: output values", rows * width, output.len())?;
        expect("gate: input values", 2 * output.len(), input.len())?;
        let data = Shared(output.as_mut_ptr());
        let step = (CHUNK / width.max(1)).max(1);
        parallel::for_each(rows.div_ceil(step), |task| {
            for row in task * step..rows.min((task + 1) * step) {
                let values = &input[2 * row * width..][..2 * width];
                // SAFETY: rows lie within `output` and do not overlap.
                let output = unsafe { std::slice::from_raw_parts_mut(data.at(row * width), width) };
                self.dispatch(Gate { activation, values, output });
            }
        });
        Ok(())
    }

    /// Rounds f32 to bf16 (to nearest even, NaN stays NaN; AMX makes denormal values zero), or widens bf16 to f32,
    /// or copies.
    pub fn convert<I: Element, O: Element>(self, input: &[I], output: &mut [O]) -> Result<(), KernelError> {
        typed!(O::output(output, None), output, _ => {
            typed!(I::values(input), input => self.convert_typed(input, output))
        })
    }

    fn convert_typed<I: Lanes, O: Lanes>(self, input: &[I], output: &mut [O]) -> Result<(), KernelError> {
        expect("convert: output values", input.len(), output.len())?;
        let data = Shared(output.as_mut_ptr());
        parallel::for_each(input.len().div_ceil(CHUNK), |task| {
            let start = task * CHUNK;
            let input = &input[start..input.len().min(start + CHUNK)];
            // SAFETY: the chunks lie within `output` and do not overlap.
            let output = unsafe { std::slice::from_raw_parts_mut(data.at(start), input.len()) };
            self.dispatch(Convert { input, output });
        });
        Ok(())
    }
}

struct Activate<'a, T> {
    activation: Activation,
    chunk: &'a mut [T],
}

impl<T: Lanes> Activate<'_, T> {
    #[inline(always)]
    fn map<S: Simd, A: Map>(self, s: S) {
        let len = self.chunk.len();
        let p = self.chunk.as_mut_ptr();
        let mut i = 0;
        // SAFETY: every access is within the chunk.
        unsafe {
            while i + S::LANES <= len {
                T::store(s, p.add(i), A::map(s, T::load(s, p.add(i))));
                i += S::LANES;
            }
            T::store_n(s, p.add(i), A::map(s, T::load_n(s, p.add(i), len - i)), len - i);
        }
    }
}

impl<T: Lanes> Kernel for Activate<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.activation {
            Activation::None => {}
            Activation::Silu => self.map::<S, Silu>(s),
            Activation::Gelu => self.map::<S, Gelu>(s),
            Activation::GeluTanh => self.map::<S, GeluTanh>(s),
            Activation::QuickGelu => self.map::<S, QuickGelu>(s),
        }
    }
}

struct Gate<'a, I, O> {
    activation: Activation,
    values: &'a [I],
    output: &'a mut [O],
}

impl<I: Lanes, O: Lanes> Gate<'_, I, O> {
    #[inline(always)]
    fn map<S: Simd, A: Map>(self, s: S) {
        let width = self.output.len();
        let (values, output) = (self.values.as_ptr(), self.output.as_mut_ptr());
        let mut j = 0;
        // SAFETY: `values` holds `2 * width` values and every access stays below.
        unsafe {
            let gates = values.add(width);
            while j + S::LANES <= width {
                let gate = A::map(s, I::load(s, gates.add(j)));
                O::store(s, output.add(j), s.mul(I::load(s, values.add(j)), gate));
                j += S::LANES;
            }
            let n = width - j;
            let gate = A::map(s, I::load_n(s, gates.add(j), n));
            O::store_n(s, output.add(j), s.mul(I::load_n(s, values.add(j), n), gate), n);
        }
    }
}

impl<I: Lanes, O: Lanes> Kernel for Gate<'_, I, O> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.activation {
            Activation::None => self.map::<S, Identity>(s),
            Activation::Silu => self.map::<S, Silu>(s),
            Activation::Gelu => self.map::<S, Gelu>(s),
            Activation::GeluTanh => self.map::<S, GeluTanh>(s),
            Activation::QuickGelu => self.map::<S, QuickGelu>(s),
        }
    }
}

struct Convert<'a, I, O> {
    input: &'a [I],
    output: &'a mut [O],
}

impl<I: Lanes, O: Lanes> Kernel for Convert<'_, I, O> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let len = self.input.len();
        let (from, to) = (self.input.as_ptr(), self.output.as_mut_ptr());
        let mut i = 0;
        // SAFETY: both slices are `len` long (checked by `convert`).
        unsafe {
            while i + S::LANES <= len {
                O::store(s, to.add(i), I::load(s, from.add(i)));
                i += S::LANES;
            }
            O::store_n(s, to.add(i), I::load_n(s, from.add(i), len - i), len - i);
        }
    }
}
