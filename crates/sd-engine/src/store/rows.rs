//! Rows as they are read. One that cannot be read - damaged, or written by another version - must not cost the others.

use operations_contract::{ErrorCode, ErrorDetail, JobId, JobView, Operation};
use rusqlite::Row;
use rusqlite::types::ValueRef;
use serde_json::{Value, json};

use super::{StoreError, uint};
use crate::submit::SubmitError;

/// The columns that [`view`] reads.
pub(super) const VIEW: &str = "jobs.view, jobs.id, jobs.state, jobs.operation, jobs.model, jobs.caller, jobs.created_ms, \
                               jobs.finished_ms";

/// The text in a column, or what is wrong with it.
pub(super) fn text(column: ValueRef<'_>) -> Result<&str, String> {
    column.as_str().map_err(|error| error.to_string())
}

/// The job in a row that has the columns of [`VIEW`] from `first` on. One that cannot be read is put together from the other
/// columns and has an `error` that says so; `None`: not even these are understood.
pub(super) fn view(row: &Row<'_>, first: usize) -> Result<Option<JobView>, StoreError> {
    let read = |text| serde_json::from_str(text).map_err(|error| error.to_string());
    let reason = match text(row.get_ref(first)?).and_then(read) {
        Ok(view) => return Ok(Some(view)),
        Err(reason) => reason,
    };
    let id: String = row.get(first + 1)?;
    tracing::warn!(job = %id, %reason, "what is written down of a job cannot be read");
    let name = |column: usize| row.get(first + column).map(Value::String);
    let (Ok(state), Ok(operation)) = (serde_json::from_value(name(2)?), serde_json::from_value(name(3)?))
    else {
        return Ok(None);
    };
    Ok(Some(JobView {
        job_id: JobId::new(id),
        state,
        operation,
        model: row.get(first + 4)?,
        created_ms: uint(row.get(first + 6)?),
        started_ms: None,
        finished_ms: row.get::<_, Option<i64>>(first + 7)?.map(uint),
        parameters: json!({}),
        progress: None,
        images: Vec::new(),
        error: Some(unreadable(&reason)),
        caller: row.get(first + 5)?,
        hive_id: None,
        worker_id: None,
    }))
}

/// The request in a column, or what its job fails with: what somebody would be told who sent it now.
pub(super) fn operation(column: ValueRef<'_>) -> Result<Operation, ErrorDetail> {
    let read = |text| serde_json::from_str(text).map_err(|error| error.to_string());
    let value: Value = text(column).and_then(read).map_err(|reason| unreadable(&reason))?;
    let parsed = Operation::parse(&value);
    match parsed.operation {
        Some(operation) if parsed.faults.is_empty() => Ok(operation),
        _ => Err(SubmitError::Invalid(parsed.faults).detail()),
    }
}

fn unreadable(reason: &str) -> ErrorDetail {
    let message = format!("what is written down of the job cannot be read: {reason}");
    ErrorDetail::new(ErrorCode::StorageFailed, message)
}
