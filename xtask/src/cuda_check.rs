//! `cargo xtask cuda-check`: the worker compiles with its CUDA features, on a machine that has neither.

use std::time::Instant;

use crate::cuda_toolkit::Toolkit;
use crate::process::{Failure, Result, cargo, run as run_command};
use crate::stages::seconds;

pub(crate) const HELP: &str = "Compile the worker with its CUDA features; needs no CUDA, no driver, no GPU\n\
     --features LIST instead of cuda; CUDA_COMPUTE_CAP=90 by default; CUDA_HOME= uses an installed toolkit";

/// The CUDA release of `tools/cuda/requirements.txt`, as cudarc spells it.
const CUDA_VERSION: &str = "13000";
/// Hopper. One architecture is enough to see that everything compiles.
const COMPUTE_CAP: &str = "90";

pub(crate) fn run(arguments: &[String]) -> Result {
    let features = features(arguments)?;
    let start = Instant::now();
    let toolkit = Toolkit::find_or_install()?;
    println!("CUDA compiler: {} ({})", toolkit.nvcc().display(), seconds(start.elapsed()).trim());

    let start = Instant::now();
    let mut check = cargo(["check", "--package", "sd-worker", "--locked", "--features", &features]);
    // candle-kernels finds nvcc by NVCC, cudarc asks the nvcc of PATH for its version unless told, and both look for
    // headers and libraries under CUDA_HOME and CUDA_PATH.
    check.env("CUDA_HOME", &toolkit.home).env("CUDA_PATH", &toolkit.home).env("NVCC", toolkit.nvcc());
    check.env("PATH", path_with(&toolkit)?);
    set_unless_set(&mut check, "CUDA_COMPUTE_CAP", COMPUTE_CAP);
    if std::env::var_os("CUDA_HOME").is_none() {
        set_unless_set(&mut check, "CUDARC_CUDA_VERSION", CUDA_VERSION);
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    set_unless_set(&mut check, "CUDAFORGE_THREADS", &threads.to_string());
    run_command(&mut check)?;
    println!("sd-worker compiles with --features {features} ({})", seconds(start.elapsed()).trim());
    Ok(())
}

fn features(arguments: &[String]) -> Result<String> {
    match arguments {
        [] => Ok("cuda".to_owned()),
        [flag, features] if flag == "--features" => Ok(features.clone()),
        [one] => one
            .strip_prefix("--features=")
            .map(str::to_owned)
            .ok_or_else(|| Failure::new(format!("`cuda-check` takes only --features LIST, not `{one}`"))),
        _ => Err(Failure::new("`cuda-check` takes only --features LIST")),
    }
}

fn path_with(toolkit: &Toolkit) -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(toolkit.home.join("bin")).chain(std::env::split_paths(&path)))
        .map_err(|error| Failure::new(format!("PATH: {error}")))
}

fn set_unless_set(command: &mut std::process::Command, name: &str, value: &str) {
    if std::env::var_os(name).is_none() {
        command.env(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_read_in_both_spellings() {
        let features = |words: &[&str]| features(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(features(&[]).unwrap(), "cuda");
        assert_eq!(features(&["--features", "cudnn"]).unwrap(), "cudnn");
        assert_eq!(features(&["--features=cuda,cudnn"]).unwrap(), "cuda,cudnn");
        assert!(features(&["--release"]).is_err());
    }
}
