//! Jobs that are taken up again after a restart.

use operations_contract::{ErrorDetail, ImageData, JobEvent, JobState, JobView, NarrationLevel, Operation};
use rusqlite::{Connection, TransactionBehavior, params};

use super::jobs::BLOCK;
use super::{Events, Journal, Store, StoreError, events, int, rows, uint};

/// Said when a job that was interrupted is begun again.
const AGAIN: &str = "the worker stopped while the job ran; it is run again from its seed";
/// So many jobs are taken up in one transaction.
const TOGETHER: usize = 16;

/// A job that was not over when the last process ended.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) journal: Journal,
    pub(crate) view: JobView,
    pub(crate) events: Events,
    pub(crate) next_event: u64,
    pub(crate) reserved: u64,
    /// Without its pictures; or why it cannot go on.
    pub(crate) operation: Result<Operation, ErrorDetail>,
    pub(crate) has_inputs: bool,
    pub(crate) caller: Option<String>,
}

impl Store {
    /// The jobs that were not over when the last process ended, the oldest first. All of them wait again; those that ran
    /// have that in their stories.
    pub(crate) fn restore(&self) -> Result<Vec<Restored>, StoreError> {
        self.in_need(|| {
            let mut restored = self.unfinished()?;
            for some in restored.chunks_mut(TOGETHER) {
                let open = &mut *self.open_now();
                let transaction =
                    open.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                for job in some {
                    take_up(&transaction, job)?;
                }
                transaction.commit()?;
            }
            Ok(restored)
        })
    }

    fn unfinished(&self) -> Result<Vec<Restored>, StoreError> {
        let connection = &self.open_now().connection;
        let mut rows = connection.prepare_cached(&format!(
            "SELECT seq, request, next_event, EXISTS (SELECT 1 FROM inputs WHERE inputs.job = jobs.seq), caller, {}
             FROM jobs WHERE finished_ms IS NULL ORDER BY seq",
            rows::VIEW
        ))?;
        let mut rows = rows.query([])?;
        let mut unfinished = Vec::new();
        while let Some(row) = rows.next()? {
            // Whoever knows what it is may take it up.
            let Some(mut view) = rows::view(row, 5)? else { continue };
            let mut operation = rows::operation(row.get_ref(1)?);
            if let Some(unreadable) = view.error.take() {
                operation = operation.and(Err(unreadable));
            }
            for (_, image) in operation.iter_mut().flat_map(Operation::images_mut) {
                *image = ImageData::default();
            }
            unfinished.push(Restored {
                journal: Journal::new(self.clone(), row.get(0)?),
                view,
                events: Vec::new(),
                next_event: uint(row.get(2)?),
                reserved: 0,
                operation,
                has_inputs: row.get(3)?,
                caller: row.get(4)?,
            });
        }
        Ok(unfinished)
    }
}

/// A job of the last process waits again, with new ids to tell events by.
fn take_up(connection: &Connection, job: &mut Restored) -> Result<(), StoreError> {
    let seq = job.journal.seq();
    if job.view.state == JobState::Running {
        let event = JobEvent::Narration { level: NarrationLevel::Info, message: AGAIN.into() };
        events::insert(connection, seq, &[(job.next_event, event)])?;
        job.next_event += 1;
        job.view.state = JobState::Queued;
        job.view.started_ms = None;
        job.view.progress = None;
    }
    job.reserved = job.next_event + BLOCK;
    connection
        .prepare_cached("UPDATE jobs SET state = 'queued', next_event = ?, view = ? WHERE seq = ?")?
        .execute(params![int(job.reserved), serde_json::to_string(&job.view)?, seq])?;
    job.events = events::of_job(connection, seq)?;
    Ok(())
}
