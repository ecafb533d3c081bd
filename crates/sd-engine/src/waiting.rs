//! The jobs that wait, as the engine's thread has them: by priority, then by age.

use std::time::Instant;

use operations_contract::ErrorCode;

use crate::queue::JobRequest;

#[derive(Debug, Default)]
pub(crate) struct Waiting(Vec<JobRequest>);

impl Waiting {
    pub(crate) fn push(&mut self, request: JobRequest) {
        let behind = self.0.partition_point(|other| other.priority >= request.priority);
        self.0.insert(behind, request);
    }

    pub(crate) fn pop(&mut self) -> Option<JobRequest> {
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets go of those that were cancelled, and ends those whose deadline has passed.
    pub(crate) fn prune(&mut self, now: Instant) {
        self.0.retain(|request| {
            let late = request.deadline.is_some_and(|deadline| deadline <= now);
            if late {
                request.sink.fail(ErrorCode::Timeout, "the deadline passed before the job's turn");
            }
            !late && !request.sink.is_over()
        });
    }

    /// Ends all: the worker is going down.
    pub(crate) fn refuse(&mut self) {
        for request in self.0.drain(..) {
            refuse(&request);
        }
    }
}

pub(crate) fn refuse(request: &JobRequest) {
    tracing::info!(job = %request.sink.id(), caller = request.caller.as_deref(), "a waiting job is refused");
    request.sink.fail(ErrorCode::ShuttingDown, "the worker shut down before the job's turn");
}
