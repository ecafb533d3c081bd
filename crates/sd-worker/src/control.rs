//! ControlNets on the command line: which are loaded, and what pictures steer a run.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use operations_contract::{Control, Preprocessor};
use sd_inference::{ControlNet, Pipeline};

use crate::exit::Failure;

/// Which ControlNets to load.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ControlNetArgs {
    /// A ControlNet to load, by the name that requests call it: `canny=FOLDER` or `canny=FILE.safetensors`. May be given
    /// several times; in the environment, several are separated by `;`.
    #[arg(long, env = "SD_WORKER_CONTROLNET", value_name = "NAME=PATH", value_delimiter = ';')]
    pub(crate) controlnet: Vec<NamedNet>,
}

/// What steers one run.
#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    #[command(flatten)]
    pub(crate) nets: ControlNetArgs,
    /// A picture that steers the run by the ControlNet of that name: `canny=edges.png`, and after commas
    /// `strength=0.8`, `start=0`, `end=0.5` (shares of the steps) and `preprocess=none|canny|depth|depth_inverted|lineart`.
    /// May be given several times; in the environment, several are separated by `;`.
    #[arg(
        long,
        env = "SD_WORKER_CONTROL",
        value_name = "NAME=FILE[,OPTION=VALUE...]",
        value_delimiter = ';'
    )]
    pub(crate) control: Vec<ControlPicture>,
    /// Let the control pictures speak for themselves: they steer only what the prompt pulls towards, the less the finer the
    /// detail.
    #[arg(long, env = "SD_WORKER_GUESS_MODE")]
    pub(crate) guess_mode: bool,
}

/// A ControlNet and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedNet {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

impl FromStr for NamedNet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = named(text, "NAME=PATH")?;
        Ok(Self { name: name.into(), path: path.into() })
    }
}

/// A control picture and how it counts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ControlPicture {
    kind: String,
    file: PathBuf,
    preprocess: Preprocessor,
    strength: f64,
    start: f64,
    end: f64,
}

impl FromStr for ControlPicture {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let (kind, file) = named(parts.next().unwrap_or_default(), "NAME=FILE")?;
        let mut control = Self {
            kind: kind.into(),
            file: file.into(),
            preprocess: Preprocessor::None,
            strength: 1.0,
            start: 0.0,
            end: 1.0,
        };
        for part in parts {
            let (option, value) = named(part, "OPTION=VALUE")?;
            let number = || value.parse().map_err(|_| format!("{option}: `{value}` is no number"));
            match option {
                "strength" => control.strength = number()?,
                "start" => control.start = number()?,
                "end" => control.end = number()?,
                "preprocess" => {
                    control.preprocess =
                        value.parse().map_err(|e: operations_contract::UnknownName| e.to_string())?;
                }
                other => {
                    return Err(format!("`{other}` is no option; known: strength, start, end, preprocess"));
                }
            }
        }
        Ok(control)
    }
}

/// Both sides of the first `=`, neither of them empty.
fn named<'a>(text: &'a str, form: &str) -> Result<(&'a str, &'a str), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name, value)),
        _ => Err(format!("`{text}` has not the form {form}")),
    }
}

impl ControlNetArgs {
    /// Loads the nets that the flags name, for `pipeline`.
    pub(crate) fn load(&self, pipeline: &Pipeline) -> Result<Vec<(String, ControlNet)>, Failure> {
        let mut nets: Vec<(String, ControlNet)> = Vec::new();
        for NamedNet { name, path } in &self.controlnet {
            if nets.iter().any(|(known, _)| known == name) {
                return Err(Failure::refused(format!("controlnet {name}: there are two of this name")));
            }
            nets.push((name.clone(), pipeline.load_controlnet(path)?));
        }
        Ok(nets)
    }
}

impl ControlArgs {
    /// The controls of a request, with their pictures read.
    pub(crate) fn read(&self) -> Result<Vec<Control>, Failure> {
        let read = |picture: &ControlPicture| {
            let ControlPicture { kind, file, preprocess, strength, start, end } = picture.clone();
            let image = crate::generate::read("control", &file)?;
            Ok(Control { kind, image, preprocess, strength, start, end })
        };
        self.control.iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_picture_is_named_with_its_options() {
        let plain: ControlPicture = "canny=a/b.png".parse().unwrap();
        let expected = ControlPicture {
            kind: "canny".into(),
            file: "a/b.png".into(),
            preprocess: Preprocessor::None,
            strength: 1.0,
            start: 0.0,
            end: 1.0,
        };
        assert_eq!(plain, expected);
        let all: ControlPicture =
            "depth=c.png,end=0.75,preprocess=depth_inverted,strength=0.5,start=0.25".parse().unwrap();
        let (kind, file, preprocess) = ("depth".into(), "c.png".into(), Preprocessor::DepthInverted);
        assert_eq!(all, ControlPicture { kind, file, preprocess, strength: 0.5, start: 0.25, end: 0.75 });
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("canny", "NAME=FILE"),
            ("=a.png", "NAME=FILE"),
            ("canny=a.png,strong=1", "`strong` is no option; known: strength"),
            ("canny=a.png,start=x", "start: `x` is no number"),
            ("canny=a.png,preprocess=cany", "known: none, canny"),
        ] {
            let error = text.parse::<ControlPicture>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!("canny=".parse::<NamedNet>().is_err());
    }
}
