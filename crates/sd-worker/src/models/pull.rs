//! `sd-worker models pull`: a model from the hub into the cache that the Python tools share.

use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};

use super::args::PullArgs;
use super::hub::{Cache, Hub, select_files};
use super::repository;
use crate::exit::{Failure, say};
use crate::model;

pub(crate) fn run(args: &PullArgs) -> Result<(), Failure> {
    let registry = model::registry(args.models_file.as_deref())?;
    let repository = repository(&registry, &args.model)?;
    let folder = registry
        .repository_folder(&repository)
        .ok_or_else(|| Failure::refused("there is no hub cache: set HF_HOME"))?;
    let hub = Hub::from_environment()?;
    let cache = Cache::new(folder);
    let listing = hub.listing(&repository, &args.revision)?;
    let wanted = select_files(&listing.files, args)
        .map_err(|reason| Failure::refused(format!("{repository}: {reason}")))?;
    let remotes = wanted.iter().map(|file| hub.head(&listing, file)).collect::<Result<Vec<_>, _>>()?;

    let total: u64 = remotes.iter().map(|remote| remote.size).sum();
    let present: u64 = remotes.iter().map(|remote| cache.present(remote)).sum();
    let bar = ProgressBar::new(total).with_position(present);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left  {msg}")
    {
        bar.set_style(style);
    }
    for remote in &remotes {
        bar.set_message(remote.file.clone());
        cache.fetch(&hub, &listing, remote, &bar)?;
    }
    bar.finish_and_clear();
    // A branch is only moved when everything it stands for is there. A commit stands for itself, but what is whole is
    // known by this alone.
    cache.set_revision(&args.revision, &listing.commit)?;
    let snapshot = cache.snapshot(&listing.commit);
    let fetched = total.saturating_sub(present);
    say(format!(
        "{}: {} files, {} ({} fetched)",
        snapshot.display(),
        remotes.len(),
        DecimalBytes(total),
        DecimalBytes(fetched)
    ))
}
