//! What a job that waits has of its task: the request, and where its pictures are.

use std::sync::Arc;

use operations_contract::{ErrorCode, ErrorDetail, ModelCapabilities};

use crate::resolve::{self, Resolved};
use crate::running::Described;
use crate::store::Journal;
use crate::task::Task;

/// A task whose turn has not come. Its pictures are in the store, as the files that were sent: a thousand jobs that wait
/// weigh little.
#[derive(Debug)]
pub(crate) struct PendingTask {
    /// What the model could do when the job was taken in.
    pub(crate) model: Arc<ModelCapabilities>,
    pub(crate) described: Arc<Described>,
    pub(crate) journal: Journal,
    pub(crate) has_inputs: bool,
}

impl PendingTask {
    /// The task with its pictures decoded, and the request as it is told with them. Every value was filled in when the job
    /// was taken in, so that it is the same task, whenever and in whichever process its turn comes.
    pub(crate) fn load(&self) -> Result<(Task, Arc<Described>), ErrorDetail> {
        let mut operation = self.described.operation.clone();
        if self.has_inputs {
            let inputs = self.journal.inputs();
            let mut inputs = inputs.map_err(|error| ErrorDetail::new(error.code(), error.to_string()))?;
            for (path, image) in operation.images_mut() {
                if let Some(at) = inputs.iter().position(|(input, _)| *input == path) {
                    *image = inputs.swap_remove(at).1;
                }
            }
        }
        // It has a seed: none is drawn.
        let resolved = resolve::resolve(operation, &self.model, || 0)
            .map_err(|faults| ErrorDetail::about_fields(ErrorCode::InvalidRequest, faults))?;
        let Resolved { task, operation, told, .. } = resolved;
        let described = match told == self.described.told {
            true => Arc::clone(&self.described),
            // What a picture tells of its making is read from it again.
            false => Arc::new(Described { operation, parameters: self.described.parameters.clone(), told }),
        };
        Ok((task, described))
    }
}
