//! What ControlNets add to a UNet.

use crate::Result;
use crate::nn::FeatureMap;

/// One map for each state that the way down hands to the way up, and one for the middle.
///
/// They may have fewer samples than what they are added to; then they belong to the last ones of the batch.
#[derive(Debug, Clone)]
pub struct Residuals {
    /// In the order in which the way down makes its states.
    pub(crate) skips: Vec<FeatureMap>,
    pub(crate) middle: FeatureMap,
}

impl Residuals {
    /// The sum of what two ControlNets say of the same samples.
    ///
    /// # Errors
    /// When they were made for other states, or on device errors.
    pub fn add(&self, other: &Self) -> Result<Self> {
        Ok(Self { skips: self.added_to(&other.skips)?, middle: other.middle.add_to_last(&self.middle)? })
    }

    /// `states`, each with its residual.
    pub(super) fn added_to(&self, states: &[FeatureMap]) -> Result<Vec<FeatureMap>> {
        if states.len() != self.skips.len() {
            let message = format!("{} residuals for {} states", self.skips.len(), states.len());
            return Err(candle_core::Error::Msg(message).into());
        }
        states.iter().zip(&self.skips).map(|(state, residual)| state.add_to_last(residual)).collect()
    }

    /// The maps as they are, those of the way down first and the middle's last.
    pub fn maps(&self) -> impl Iterator<Item = &FeatureMap> {
        self.skips.iter().chain([&self.middle])
    }
}
