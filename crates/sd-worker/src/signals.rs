//! The signals that a service follows.

use crate::exit::Failure;
use crate::reload::Reload;

/// SIGTERM, Ctrl-C and, on Unix, SIGHUP.
pub(crate) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hang_up: tokio::signal::unix::Signal,
}

enum Signal {
    /// By its name.
    Stop(&'static str),
    #[cfg(unix)]
    Reload,
}

impl Signals {
    pub(crate) fn new() -> Result<Self, Failure> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let handler =
                |kind| signal(kind).map_err(|error| Failure::failed(format!("no signal handler: {error}")));
            Ok(Self { terminate: handler(SignalKind::terminate())?, hang_up: handler(SignalKind::hangup())? })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next one that ends the service and tells its name. Meanwhile SIGHUP reads the configuration again.
    pub(crate) async fn stop(&mut self, reload: &mut Reload) -> &'static str {
        loop {
            match self.next().await {
                Signal::Stop(name) => return name,
                // A file is read: short, but no matter for the thread that answers requests.
                #[cfg(unix)]
                Signal::Reload => tokio::task::block_in_place(|| reload.again()),
            }
        }
    }

    async fn next(&mut self) -> Signal {
        #[cfg(unix)]
        {
            tokio::select! {
                _ = self.terminate.recv() => Signal::Stop("SIGTERM"),
                _ = self.hang_up.recv() => Signal::Reload,
                _ = tokio::signal::ctrl_c() => Signal::Stop("SIGINT"),
            }
        }
        #[cfg(not(unix))]
        {
            let _ = tokio::signal::ctrl_c().await;
            Signal::Stop("Ctrl-C")
        }
    }
}
