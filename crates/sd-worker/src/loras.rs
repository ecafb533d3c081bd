//! The adapters that the flags name, and those of a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use operations_contract as contract;
use sd_inference::{Lora, Pipeline};

use crate::exit::Failure;

/// What adapter files end in.
const ENDING: &str = "safetensors";

/// An adapter as a flag gives it: `ink`, `ink:0.8`, `folder/ink.safetensors:-1`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LoraArg {
    name: String,
    scale: f64,
}

impl FromStr for LoraArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let scaled = text.rsplit_once(':').and_then(|(name, scale)| Some((name, scale.parse::<f64>().ok()?)));
        let (name, scale) = scaled.unwrap_or((text, 1.0));
        if name.is_empty() {
            return Err("a name or a file is missing".into());
        }
        let range = contract::bounds::LORA_SCALE;
        if !range.contains(&scale) {
            return Err(format!("the scale {scale} is outside {} to {}", range.start(), range.end()));
        }
        Ok(Self { name: name.to_owned(), scale })
    }
}

impl LoraArg {
    /// As a request to another worker has it, which knows adapters by their names only.
    pub(crate) fn named(&self) -> Result<contract::Lora, String> {
        let path = Path::new(&self.name);
        match path.components().count() > 1 || path.extension().is_some() {
            true => Err(format!("lora {}: is a file; the worker knows adapters by name", self.name)),
            false => Ok(contract::Lora { name: self.name.clone(), scale: self.scale }),
        }
    }

    /// The file that is meant, where it is one and no name.
    fn file(&self) -> Option<PathBuf> {
        let path = Path::new(&self.name);
        let is_path = path.components().count() > 1 || path.extension().is_some() || path.is_file();
        is_path.then(|| path.to_path_buf())
    }
}

/// The names of the files of `folder`.
pub(crate) fn names(folder: Option<&Path>) -> Result<Vec<String>, Failure> {
    let files = listed(folder)?;
    let mut names: Vec<String> =
        files.iter().filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort_unstable();
    Ok(names)
}

/// The adapter files of `folder`.
fn listed(folder: Option<&Path>) -> Result<Vec<PathBuf>, Failure> {
    let Some(folder) = folder else { return Ok(Vec::new()) };
    let refused = |error: std::io::Error| Failure::refused(format!("lora-dir {}: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(refused)? {
        let path = entry.map_err(refused)?.path();
        if path.extension().is_some_and(|ending| ending == ENDING) {
            files.push(path);
        }
    }
    Ok(files)
}

/// The files of `folder` that fit the model, by their names. What does not fit is told and left out.
pub(crate) fn of_folder(
    folder: Option<&Path>,
    pipeline: &Pipeline,
) -> Result<BTreeMap<String, Lora>, Failure> {
    let mut loras = BTreeMap::new();
    let Some(folder) = folder else { return Ok(loras) };
    for path in listed(Some(folder))? {
        match open(&path, pipeline) {
            Ok(lora) => drop(loras.insert(lora.name().to_owned(), lora)),
            Err(failure) => tracing::warn!("left out: {}", failure.message),
        }
    }
    tracing::info!(count = loras.len(), folder = %folder.display(), "loras");
    Ok(loras)
}

/// What a request says of the adapters that the flags name, and the adapters themselves.
pub(crate) fn chosen(
    args: &[LoraArg],
    folder: Option<&Path>,
    pipeline: &Pipeline,
) -> Result<(Vec<contract::Lora>, BTreeMap<String, Lora>), Failure> {
    let mut loras = BTreeMap::new();
    let mut chosen = Vec::new();
    for arg in args {
        let path = match (arg.file(), folder) {
            (Some(file), _) => file,
            (None, Some(folder)) => folder.join(format!("{}.{ENDING}", arg.name)),
            (None, None) => {
                return Err(Failure::refused(format!(
                    "lora {}: no such file, and no --lora-dir to look for the name in",
                    arg.name
                )));
            }
        };
        let lora = open(&path, pipeline)?;
        // Files of one name in two folders keep their paths.
        let name = match loras.get(lora.name()).is_some_and(|other: &Lora| other.file() != lora.file()) {
            true => arg.name.clone(),
            false => lora.name().to_owned(),
        };
        chosen.push(contract::Lora { name: name.clone(), scale: arg.scale });
        loras.insert(name, lora);
    }
    Ok((chosen, loras))
}

fn open(path: &Path, pipeline: &Pipeline) -> Result<Lora, Failure> {
    let lora = Lora::open(path).map_err(Failure::refused)?;
    pipeline.check_lora(&lora)?;
    Ok(lora)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_files_and_scales_are_told_apart() {
        for (text, name, scale, is_file) in [
            ("ink", "ink", 1.0, false),
            ("ink:0.8", "ink", 0.8, false),
            ("ink:-1", "ink", -1.0, false),
            ("folder/ink.safetensors:2", "folder/ink.safetensors", 2.0, true),
            ("ink.safetensors", "ink.safetensors", 1.0, true),
            ("a:b", "a:b", 1.0, false),
        ] {
            let arg: LoraArg = text.parse().unwrap();
            assert_eq!(
                (arg.name.as_str(), arg.scale, arg.file().is_some()),
                (name, scale, is_file),
                "{text}"
            );
        }
        for text in ["", ":1", "ink:11", "ink:nan", "ink:inf"] {
            assert!(text.parse::<LoraArg>().is_err(), "{text}");
        }
    }
}
