//! What the log says of jobs.

use operations_contract::{JobId, Operation};

/// Whose job it is, and the request that brought it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who<'a> {
    pub(crate) caller: Option<&'a str>,
    pub(crate) request_id: Option<&'a str>,
}

/// One line; with the prompts only where the operator asked for them.
pub(crate) fn accepted(job: &JobId, who: Who<'_>, operation: &Operation, prompts: bool) {
    let Who { caller, request_id } = who;
    let kind = operation.kind().as_str();
    if let Some(common) = operation.common().filter(|_| prompts) {
        let negative = (!common.negative_prompt.is_empty()).then_some(&common.negative_prompt[..]);
        let (prompt_2, negative_2) = (common.prompt_2.as_deref(), common.negative_prompt_2.as_deref());
        tracing::info!(
            %job, caller, request_id, operation = kind, prompt = common.prompt, negative_prompt = negative,
            prompt_2, negative_prompt_2 = negative_2, "accepted"
        );
    } else {
        tracing::info!(%job, caller, request_id, operation = kind, "accepted");
    }
}
