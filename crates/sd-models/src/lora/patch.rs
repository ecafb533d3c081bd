//! What adapters add to the weights of one part of a model.

use std::collections::HashMap;

use sd_kernels::{Epilogue, PackedLinear, Precision};

use super::Lora;
use crate::Result;

/// What is added to which layers of a model part. Equal patches give equal weights.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Patch(HashMap<String, Vec<Term>>);

/// One module of one adapter, at its strength.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Term {
    lora: Lora,
    module: usize,
    scale: f64,
}

impl Patch {
    /// Whether nothing is added.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, scope: &str, lora: &Lora, module: usize, scale: f64) {
        let term = Term { lora: lora.clone(), module, scale };
        self.0.entry(scope.to_owned()).or_default().push(term);
    }

    /// What is added to the weight of the layer `scope`.
    pub(crate) fn terms(&self, scope: &str) -> Option<&[Term]> {
        self.0.get(scope).map(Vec::as_slice)
    }
}

/// `weight`, of `rows` rows, plus the sum of `terms`, in f32.
///
/// All terms are one product: their ranks stand side by side, and each `up` carries its scale. The product is added
/// up first and then to the weight, so that a large weight rounds it only once.
pub(crate) fn added(terms: &[Term], weight: &[f32], rows: usize) -> Result<Vec<f32>> {
    let columns = weight.len() / rows.max(1);
    let ranks = terms.iter().map(|term| term.module().rank()).sum();
    // The product's right side is read by column, so `down` is laid out as `(columns, ranks)`.
    let (mut up, mut down) = (vec![0f32; rows * ranks], vec![0f32; columns * ranks]);
    let mut first = 0;
    for term in terms {
        let module = term.module();
        let (rank, scale) = (module.rank(), (term.scale * module.factor) as f32);
        let (own_down, own_up) = term.lora.factors(module)?;
        for (place, own) in up.chunks_exact_mut(ranks).zip(own_up.chunks_exact(rank)) {
            place[first..first + rank].iter_mut().zip(own).for_each(|(place, value)| *place = scale * value);
        }
        for (row, own) in own_down.chunks_exact(columns).enumerate() {
            down.chunks_exact_mut(ranks).zip(own).for_each(|(place, value)| place[first + row] = *value);
        }
        first += rank;
    }
    let kernels = sd_kernels::active();
    let product = PackedLinear::new(kernels, (&down[..]).into(), columns, ranks, None, Precision::F32)?;
    let mut sum = vec![0f32; weight.len()];
    product.forward(
        &up[..],
        rows,
        &mut sum[..],
        Epilogue { residual: Some(weight), ..Epilogue::default() },
    )?;
    Ok(sum)
}

impl Term {
    fn module(&self) -> &super::file::Module {
        &self.lora.modules()[self.module]
    }
}
