//! The arguments of `cargo xtask bench`.

use std::path::PathBuf;
use std::str::FromStr;

use super::Case;
use crate::process::{Failure, Result};

/// PyTorch's memory layouts.
const LAYOUTS: &[&str] = &["contiguous", "channels_last"];

/// What to measure, and with what.
#[derive(Debug, PartialEq)]
pub(super) struct Options {
    pub(super) vs_torch: bool,
    pub(super) vs_sdcpp: Option<PathBuf>,
    pub(super) python: Option<PathBuf>,
    pub(super) worker: Option<PathBuf>,
    pub(super) models: Vec<String>,
    pub(super) sizes: Vec<usize>,
    pub(super) threads: Vec<usize>,
    pub(super) dtypes: Vec<String>,
    pub(super) parts: Vec<String>,
    pub(super) steps: usize,
    pub(super) rounds: usize,
    pub(super) iterations: usize,
    pub(super) warmup: usize,
    pub(super) layouts: Vec<String>,
    pub(super) prefix: Option<String>,
    pub(super) json: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Self {
            vs_torch: false,
            vs_sdcpp: None,
            python: None,
            worker: None,
            models: words(&["sd15"]),
            sizes: vec![512],
            threads: vec![std::thread::available_parallelism().map_or(1, usize::from)],
            dtypes: words(&["f32", "bf16"]),
            parts: words(&["text", "step", "decode"]),
            steps: 20,
            rounds: 3,
            iterations: 2,
            warmup: 1,
            layouts: words(LAYOUTS),
            prefix: None,
            json: None,
        }
    }
}

impl Options {
    /// Reads `--flag value`s.
    pub(super) fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut arguments = arguments.iter();
        while let Some(flag) = arguments.next() {
            if flag == "--vs-torch" {
                options.vs_torch = true;
                continue;
            }
            let mut value =
                || arguments.next().ok_or_else(|| Failure::new(format!("`bench`: {flag} needs a value")));
            match flag.as_str() {
                "--vs-sdcpp" => options.vs_sdcpp = Some(value()?.into()),
                "--python" => options.python = Some(value()?.into()),
                "--worker" => options.worker = Some(value()?.into()),
                "--model" => options.models = list(flag, value()?)?,
                "--size" => options.sizes = list(flag, value()?)?,
                "--threads" => options.threads = list(flag, value()?)?,
                "--dtype" => options.dtypes = known(flag, value()?, &["f32", "bf16"])?,
                "--parts" => options.parts = known(flag, value()?, &["text", "step", "decode", "picture"])?,
                "--steps" => options.steps = positive(flag, value()?)?,
                "--rounds" => options.rounds = positive(flag, value()?)?,
                "--iterations" => options.iterations = positive(flag, value()?)?,
                "--warmup" => options.warmup = number(flag, value()?, 0)?,
                "--layout" => options.layouts = known(flag, value()?, LAYOUTS)?,
                "--prefix" => options.prefix = Some(value()?.clone()),
                "--json" => options.json = Some(value()?.into()),
                _ => {
                    return Err(Failure::new(format!("`bench` knows no {flag}: cargo xtask bench --help")));
                }
            }
        }
        Ok(options)
    }

    /// Every combination of model, size and threads.
    pub(super) fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for model in &self.models {
            for &size in &self.sizes {
                for &threads in &self.threads {
                    cases.push(Case { model: model.clone(), size, threads });
                }
            }
        }
        cases
    }
}

/// What is separated by commas.
fn list<T: FromStr>(flag: &str, value: &str) -> Result<Vec<T>> {
    let parse = |word: &str| {
        word.trim().parse().map_err(|_| Failure::new(format!("`bench`: {flag} does not take `{word}`")))
    };
    value.split(',').map(parse).collect()
}

/// As `list`, of known words.
fn known(flag: &str, value: &str, words: &[&str]) -> Result<Vec<String>> {
    let given: Vec<String> = list(flag, value)?;
    match given.iter().find(|word| !words.contains(&word.as_str())) {
        None => Ok(given),
        Some(word) => {
            Err(Failure::new(format!("`bench`: {flag} does not take `{word}`, only {}", words.join(", "))))
        }
    }
}

fn positive(flag: &str, value: &str) -> Result<usize> {
    number(flag, value, 1)
}

fn number(flag: &str, value: &str, least: usize) -> Result<usize> {
    let refused = || Failure::new(format!("`bench`: {flag} takes a number from {least}, not `{value}`"));
    value.parse().ok().filter(|number| *number >= least).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Options> {
        Options::parse(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn every_combination_is_a_case() {
        let options = parse("--vs-torch --model sd15,sdxl --size 256,512 --threads 1,2 --rounds 5").unwrap();
        assert!(options.vs_torch);
        assert_eq!(options.rounds, 5);
        let cases = options.cases();
        assert_eq!(cases.len(), 8);
        assert_eq!(cases[1].to_string(), "sd15 at 256x256, 2 threads");
        assert_eq!(cases[6].to_string(), "sdxl at 512x512, 1 thread");
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        assert_eq!(parse("").unwrap(), Options::default());
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (words, named) in [
            ("--fast", "--fast"),
            ("--size", "--size needs a value"),
            ("--size big", "`big`"),
            ("--rounds 0", "--rounds takes a number from 1"),
            ("--warmup -1", "--warmup takes a number from 0"),
            ("--layout nchw", "only contiguous, channels_last"),
            ("--dtype f16", "only f32, bf16"),
            ("--parts text,unet", "`unet`"),
        ] {
            let message = parse(words).unwrap_err().to_string();
            assert!(message.contains(named), "{words}: {message}");
        }
    }
}
