//! Variables that look like settings and are none.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::{Command, CommandFactory};

use super::{ALIKE, variable};
use crate::args::Cli;

const PREFIX: &str = "SD_WORKER_";

/// Says which variables of the environment no command of this version reads. They may be somebody else's, so the worker
/// starts all the same.
pub(crate) fn warn() {
    for warning in warnings(std::env::vars_os().map(|(name, _)| name)) {
        tracing::warn!("{warning}");
    }
}

fn warnings(names: impl Iterator<Item = OsString>) -> Vec<String> {
    let known = known();
    let names = names.filter_map(|name| name.into_string().ok());
    let unknown = names.filter(|name| name.starts_with(PREFIX) && !known.contains(name));
    unknown
        .map(|name| {
            let rated = known.iter().map(|known| (strsim::jaro_winkler(tail(&name), tail(known)), known));
            match rated.max_by(|(a, _), (b, _)| a.total_cmp(b)) {
                Some((score, meant)) if score >= ALIKE => {
                    format!("the environment's {name} is no setting, did you mean {meant}?")
                }
                _ => format!("the environment's {name} is no setting"),
            }
        })
        .collect()
}

/// What tells variables apart.
fn tail(name: &str) -> &str {
    name.strip_prefix(PREFIX).unwrap_or(name)
}

/// The variables of all commands.
fn known() -> BTreeSet<String> {
    fn collect(command: &Command, known: &mut BTreeSet<String>) {
        known.extend(command.get_arguments().map(variable));
        command.get_subcommands().for_each(|command| collect(command, known));
    }
    let mut known = BTreeSet::new();
    collect(&Cli::command(), &mut known);
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(name: &str) -> String {
        warnings([name.into()].into_iter()).join("\n")
    }

    #[test]
    fn a_misspelt_variable_is_told_with_what_was_meant() {
        let misspelt = warned("SD_WORKER_QUEUE_CAPACTIY");
        assert!(
            misspelt.contains("CAPACTIY") && misspelt.contains("mean SD_WORKER_QUEUE_CAPACITY"),
            "{misspelt}"
        );
        let strange = warned("SD_WORKER_XYZZY");
        assert!(strange.contains("XYZZY is no setting") && !strange.contains("mean"), "{strange}");
    }

    #[test]
    fn settings_and_variables_of_others_are_not_told() {
        for name in
            ["SD_WORKER_TOKEN", "SD_WORKER_PROMPT", "SD_WORKER_LOG", "SD_KERNELS", "PATH", "SD_WORKER"]
        {
            assert_eq!(warned(name), "", "{name}");
        }
    }
}
