//! What the web UI keeps for its one user: settings and the jobs on their way. Here each caller has its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use operations_contract::{JobId, JobView};

use super::settings::Settings;
use crate::api::Api;
use crate::caller::Caller;

/// By the name of the token; there are no more callers than tokens.
#[derive(Debug, Default)]
pub(crate) struct State(Mutex<Callers>);

type Callers = HashMap<Option<Arc<str>>, OfCaller>;

#[derive(Debug, Default)]
struct OfCaller {
    settings: Settings,
    /// In the order of their submission.
    jobs: Vec<JobId>,
}

impl State {
    /// Nothing panics while it is held, and if something did, it would still be whole.
    fn callers(&self) -> MutexGuard<'_, Callers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn settings(&self, caller: &Caller) -> Settings {
        self.callers().get(&caller.name()).map(|of| of.settings.clone()).unwrap_or_default()
    }

    pub(crate) fn keep_settings(&self, caller: &Caller, settings: Settings) {
        self.callers().entry(caller.name()).or_default().settings = settings;
    }

    /// A job was submitted.
    pub(crate) fn add(&self, api: &Api, caller: &Caller, job: JobId) {
        let mut callers = self.callers();
        let jobs = &mut callers.entry(caller.name()).or_default().jobs;
        jobs.retain(|job| is_alive(api, job).is_some());
        jobs.push(job);
    }

    /// The job that runs, or waits longest.
    pub(crate) fn current(&self, api: &Api, caller: &Caller) -> Option<JobView> {
        let mut callers = self.callers();
        let jobs = &mut callers.get_mut(&caller.name())?.jobs;
        jobs.retain(|job| is_alive(api, job).is_some());
        let first = jobs.first()?;
        is_alive(api, first)
    }
}

fn is_alive(api: &Api, job: &JobId) -> Option<JobView> {
    api.router().living(job)
}
