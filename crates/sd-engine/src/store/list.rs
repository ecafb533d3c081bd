//! Lists of jobs, page by page.

use operations_contract::{JobState, JobView, OperationKind};
use rusqlite::params;

use super::rows::{self, VIEW};
use super::{Store, StoreError, int};

/// Which jobs are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobQuery {
    /// In one of these states; empty: in any.
    pub states: Vec<JobState>,
    /// Of this operation.
    pub operation: Option<OperationKind>,
    /// For this model, by its id.
    pub model: Option<String>,
    /// Of this caller.
    pub caller: Option<String>,
    /// Accepted then or later: milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Accepted before: milliseconds since 1970.
    pub until_ms: Option<u64>,
    /// Which ones first.
    pub order: Order,
    /// How many at most; absent: all.
    pub limit: Option<usize>,
    /// Those after the page that gave this [`next`](JobPage::next).
    pub after: Option<u64>,
}

/// Which jobs stand first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// Those that were accepted first.
    #[default]
    Oldest,
    /// Those that were accepted last.
    Newest,
}

/// Some jobs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobPage {
    /// In the order that was asked for.
    pub jobs: Vec<JobView>,
    /// Where the next page begins, if there are more.
    pub next: Option<u64>,
}

impl JobQuery {
    /// Whether a job in this state is wanted.
    pub(crate) fn wants(&self, state: JobState) -> bool {
        self.states.is_empty() || self.states.contains(&state)
    }
}

impl Store {
    /// The jobs that are wanted, as they were last written down.
    pub(crate) fn list(&self, query: &JobQuery) -> Result<JobPage, StoreError> {
        // A running job may have been written down as waiting, and the other way round; who knows more looks again.
        let mut states: Vec<&str> = query.states.iter().map(|state| state.as_str()).collect();
        if states.contains(&"queued") || states.contains(&"running") {
            states.extend(["queued", "running"]);
        }
        let states = serde_json::to_string(&states)?;
        let (beyond, order) = match query.order {
            Order::Oldest => (">", "ASC"),
            Order::Newest => ("<", "DESC"),
        };
        let sql = format!(
            "SELECT seq, {VIEW} FROM jobs
             WHERE (?1 = '[]' OR state IN (SELECT value FROM json_each(?1)))
               AND (?2 IS NULL OR operation = ?2) AND (?3 IS NULL OR model = ?3)
               AND (?4 IS NULL OR created_ms >= ?4) AND (?5 IS NULL OR created_ms < ?5)
               AND (?6 IS NULL OR seq {beyond} ?6) AND (?8 IS NULL OR caller = ?8)
             ORDER BY seq {order} LIMIT ?7"
        );
        let limit = query.limit.unwrap_or(usize::MAX >> 1);
        let connection = &self.open_now().connection;
        let mut statement = connection.prepare_cached(&sql)?;
        let mut found = statement.query(params![
            states,
            query.operation.map(OperationKind::as_str),
            query.model,
            query.since_ms.map(int),
            query.until_ms.map(int),
            query.after.map(int),
            // One more, to know whether there are more.
            int(limit as u64 + 1),
            query.caller,
        ])?;
        let mut page = JobPage::default();
        let (mut seen, mut last) = (0, None);
        while let Some(row) = found.next()? {
            if seen == limit {
                page.next = last;
                break;
            }
            (seen, last) = (seen + 1, Some(super::uint(row.get(0)?)));
            page.jobs.extend(rows::view(row, 1)?);
        }
        Ok(page)
    }
}
