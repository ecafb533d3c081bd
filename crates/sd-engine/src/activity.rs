//! How many jobs the engine has, for those who want to know whether the worker is busy.

use tokio::sync::watch;

/// A count of the jobs that wait or run. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Activity(watch::Sender<usize>);

/// One job that counts, until it is dropped.
#[derive(Debug)]
pub(crate) struct Present(watch::Sender<usize>);

impl Activity {
    /// Counts one more.
    pub(crate) fn enter(&self) -> Present {
        self.0.send_modify(|jobs| *jobs += 1);
        Present(self.0.clone())
    }

    /// The count and its changes.
    pub(crate) fn watch(&self) -> watch::Receiver<usize> {
        self.0.subscribe()
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.send_modify(|jobs| *jobs = jobs.saturating_sub(1));
    }
}
