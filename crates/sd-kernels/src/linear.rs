//! Fully connected layers.
#![allow(unsafe_code)]

use crate::element::{Element, Output, Values, typed};
use crate::error::expect;
use crate::gemm::epilogue::Target;
use crate::gemm::gather::Dense;
use crate::gemm::multiply;
use crate::gemm::pack::{Columns, PackedB};
use crate::{Activation, KernelError, Kernels, Precision, Weights};

/// What is fused to the end of a product: `output = activation(product + bias) + residual`.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a, O> {
    /// Applied after the bias; on a gated layer, to the gates.
    pub activation: Activation,
    /// Added last; of the output's shape.
    pub residual: Option<&'a [O]>,
}

impl<O> Default for Epilogue<'_, O> {
    fn default() -> Self {
        Self { activation: Activation::None, residual: None }
    }
}

/// The weight and bias of a linear layer, packed once for the kernels that will read them.
///
/// ```
/// use sd_kernels::{Epilogue, PackedLinear, Precision, active};
/// // y = x [[1, 2], [3, 4], [5, 6]]^T + [0.5, 0.5, 0.5]
/// let weight = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
/// let bias = [0.5f32; 3];
/// let layer = PackedLinear::new(active(), (&weight[..]).into(), 3, 2, Some((&bias[..]).into()), Precision::F32)?;
/// let mut y = [0f32; 3];
/// layer.forward(&[1.0f32, 1.0], 1, &mut y, Epilogue::default())?;
/// assert_eq!(y, [3.5, 7.5, 11.5]);
/// # Ok::<(), sd_kernels::KernelError>(())
/// ```
#[derive(Debug)]
pub struct PackedLinear {
    b: PackedB,
}

impl PackedLinear {
    /// Packs `weight`, (outputs, inputs) row-major as in a checkpoint, and `bias`, (outputs).
    pub fn new(
        kernels: Kernels,
        weight: Weights<'_>,
        outputs: usize,
        inputs: usize,
        bias: Option<Weights<'_>>,
        precision: Precision,
    ) -> Result<Self, KernelError> {
        let shape = [outputs, inputs, 1];
        Ok(Self { b: PackedB::new(kernels, weight, shape, bias, Columns::Plain, precision)? })
    }

    /// Packs a gated layer (GEGLU, SwiGLU): `weight` is (2 * outputs, inputs) with the values' rows first,
    /// then the gates', and the layer computes `value * activation(gate)`, (rows, outputs).
    pub fn gated(
        kernels: Kernels,
        weight: Weights<'_>,
        outputs: usize,
        inputs: usize,
        bias: Option<Weights<'_>>,
        precision: Precision,
    ) -> Result<Self, KernelError> {
        let shape = [2 * outputs, inputs, 1];
        Ok(Self { b: PackedB::new(kernels, weight, shape, bias, Columns::Gated, precision)? })
    }

    /// Values in a row of the input.
    pub fn inputs(&self) -> usize {
        self.b.k
    }

    /// Values in a row of the output.
    pub fn outputs(&self) -> usize {
        self.b.outputs()
    }

    /// Memory that the packed weights take, in bytes.
    pub fn bytes(&self) -> usize {
        self.b.bytes()
    }

    /// Computes `output` (rows, outputs) from `input` (rows, inputs), both contiguous.
    ///
    /// A row's result does not depend on the other rows.
    pub fn forward<I: Element, O: Element>(
        &self,
        input: &[I],
        rows: usize,
        output: &mut [O],
        epilogue: Epilogue<'_, O>,
    ) -> Result<(), KernelError> {
        self.run(I::values(input), rows, O::output(output, epilogue.residual), epilogue.activation)
    }

    fn run(
        &self,
        input: Values<'_>,
        rows: usize,
        output: Output<'_>,
        activation: Activation,
    ) -> Result<(), KernelError> {
        expect("linear: input values", rows * self.inputs(), input.len())?;
        expect("linear: output values", rows * self.outputs(), output.len())?;
        output.check("linear: residual values")?;
        crate::work::count(rows * self.inputs() * self.b.n);
        let (stride, gated) = (self.outputs(), self.b.columns == Columns::Gated);
        typed!(output, values, residual => {
            let output = values.as_mut_ptr();
            let target = Target { output, stride, residual, per_image: None, activation, gated };
            typed!(input, data => {
                let source = Dense { data, rows, depth: self.inputs() };
                // SAFETY: the lengths were checked above.
                unsafe { multiply(&source, &self.b, &target) };
            });
        });
        Ok(())
    }
}
