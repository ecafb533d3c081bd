//! SIGHUP: the configuration is read again, and what can change while the worker serves is changed.

use std::ffi::OsString;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::args::{Cli, Command, ServeArgs};
use crate::config::{self, Configured, Setting, Settings, Unusable};
use crate::logging::LogHandle;

/// The parts of a serving worker that can be told something new.
#[derive(Debug)]
pub(crate) struct Live {
    log: LogHandle,
    drain_timeout: AtomicU64,
}

/// Tells one part what its key says now. It is called whenever the configuration is read again, changed or not: the
/// key may name a file whose content changed.
type Apply = fn(&Live, &Cli, &ServeArgs) -> Result<(), String>;

/// The keys that need no restart.
const APPLIED: &[(&str, Apply)] = &[
    ("log", |live, cli, _| live.log.set(cli.log.as_deref())),
    ("drain-timeout", |live, _, args| {
        live.drain_timeout.store(args.life.drain_timeout, Ordering::Relaxed);
        Ok(())
    }),
];

/// Whether a change of this key needs no restart.
pub(crate) fn takes(key: &str) -> bool {
    APPLIED.iter().any(|(applied, _)| *applied == key)
}

impl Live {
    pub(crate) fn new(log: LogHandle, args: &ServeArgs) -> Self {
        Self { log, drain_timeout: AtomicU64::new(args.life.drain_timeout) }
    }

    /// How long running jobs are waited for at the end.
    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_timeout.load(Ordering::Relaxed))
    }
}

/// Reads the configuration again.
#[derive(Debug)]
pub(crate) struct Reload {
    arguments: Vec<OsString>,
    settings: Settings,
    live: Live,
}

impl Reload {
    /// Takes the command line, what it was read as, and what can be told something new.
    pub(crate) fn new(arguments: Vec<OsString>, settings: Settings, live: Live) -> Self {
        Self { arguments, settings, live }
    }

    pub(crate) fn live(&self) -> &Live {
        &self.live
    }

    /// Says what is not wrong with the configuration but should be known.
    pub(crate) fn warn(&self) {
        for warning in &self.settings.warnings {
            tracing::warn!("{warning}");
        }
    }

    /// Reads again. If that fails, all stays as it was.
    pub(crate) fn again(&mut self) {
        let Configured { cli, settings, .. } = match config::load(&self.arguments) {
            Ok(configured) => configured,
            Err(unusable) => {
                let reason = match unusable {
                    Unusable::CommandLine(error) => error.to_string(),
                    Unusable::File(failure) => failure.message,
                };
                tracing::error!("the configuration stays as it was: {reason}");
                return;
            }
        };
        let Command::Serve(args) = &cli.command else { return };
        for (key, apply) in APPLIED {
            if let Err(reason) = apply(&self.live, &cli, args) {
                tracing::error!(key, "cannot be changed: {reason}");
            }
        }
        for (old, new) in self.settings.settings.iter().zip(&settings.settings) {
            match old.values == new.values {
                true => {}
                false if takes(&new.key) => tracing::info!(key = new.key, "changed"),
                false => tracing::warn!(key = new.key, "changed in the configuration, but needs a restart"),
            }
        }
        let told = |settings: &Settings| -> Vec<Vec<(String, Vec<String>)>> {
            let of = |setting: &Setting| (setting.key.clone(), setting.values.clone());
            settings.models.iter().map(|table| table.iter().map(of).collect()).collect()
        };
        if told(&self.settings) != told(&settings) {
            tracing::warn!(key = "models", "changed in the configuration, but needs a restart");
        }
        self.settings = settings;
        self.warn();
        tracing::info!("the configuration was read again");
    }
}
