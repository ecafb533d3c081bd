//! Residual-in-residual dense blocks.

use super::naming::Naming;
use crate::nn::{Conv2d, ConvConfig, FeatureMap};
use crate::{Result, Weights};

/// Of every leaky ReLU of these networks.
pub(super) const SLOPE: f32 = 0.2;
/// By which what a block adds is scaled.
const RESIDUAL: f32 = 0.2;

/// Three dense parts, and the input again.
#[derive(Debug)]
pub(super) struct Rrdb([Dense; 3]);

/// Five convolutions, each of which sees the input and what all before it made.
#[derive(Debug)]
struct Dense([Conv2d; 5]);

impl Rrdb {
    pub(super) fn load(weights: &Weights, naming: Naming, block: usize, features: usize) -> Result<Self> {
        let part = |part| Dense::load(weights, naming, block, part, features);
        Ok(Self([part(1)?, part(2)?, part(3)?]))
    }

    pub(super) fn forward(&self, input: FeatureMap) -> Result<FeatureMap> {
        let state = self.0.iter().try_fold(input.clone(), |state, dense| dense.forward(&state))?;
        state.scaled_plus(RESIDUAL, &input)
    }
}

impl Dense {
    fn load(weights: &Weights, naming: Naming, block: usize, part: usize, features: usize) -> Result<Self> {
        // What one convolution adds; where it is missing, the load says so.
        let first = naming.dense(block, part, 1, "weight");
        let growth = weights.shape(&first).and_then(|shape| shape.first().copied()).unwrap_or(features / 2);
        let conv = |number: usize| {
            let outputs = if number == 5 { features } else { growth };
            let scope = naming.dense(block, part, number, "");
            Conv2d::load(
                &weights.child(scope.trim_end_matches('.')),
                features + (number - 1) * growth,
                outputs,
                ConvConfig::SAME_3X3,
            )
        };
        Ok(Self([conv(1)?, conv(2)?, conv(3)?, conv(4)?, conv(5)?]))
    }

    fn forward(&self, input: &FeatureMap) -> Result<FeatureMap> {
        let [inner @ .., last] = &self.0;
        let mut seen = input.clone();
        for conv in inner {
            seen = seen.concat_channels(&conv.forward(&seen)?.leaky_relu(SLOPE)?)?;
        }
        last.forward(&seen)?.scaled_plus(RESIDUAL, input)
    }
}
