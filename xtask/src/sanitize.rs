//! `cargo xtask sanitize`: the kernels' tests under AddressSanitizer and valgrind.

use crate::process::{Failure, Result, cargo, run as run_command};
use crate::stages::Stages;
use crate::workspace;

pub(crate) const HELP: &str = "Run the kernels' tests under AddressSanitizer and valgrind\n\
     Arguments name one: address valgrind. Linux on x86-64 or aarch64; some minutes each.\n\
     Scratch memory is then new for each use, full of NaN, and fenced (crates/sd-kernels/src/buffer.rs).\n\
     Valgrind knows AVX2 at most, so it sees the scalar and AVX2 kernels and AMX as AVX2 computes it.";

type Stage = (&'static str, fn() -> Result);
const STAGES: [Stage; 2] = [("address", address), ("valgrind", valgrind)];

pub(crate) fn run(arguments: &[String]) -> Result {
    if let Some(unknown) = arguments.iter().find(|name| STAGES.iter().all(|(stage, _)| stage != name)) {
        return Err(Failure::new(format!("there is no sanitizer `{unknown}`: address, valgrind")));
    }
    let mut stages = Stages::default();
    for (name, stage) in STAGES {
        if arguments.is_empty() || arguments.iter().any(|argument| argument == name) {
            stages.run(name, stage);
        }
    }
    stages.finish()
}

/// Every kernel set of this machine.
fn address() -> Result {
    let flags = "-Zsanitizer=address --cfg sd_sanitize --cfg sd_sanitize=\"address\"";
    let mut test = tests("address", flags)?;
    // The toolchain has the sanitizer's runtime, but takes the flag only so.
    run_command(test.env("RUSTC_BOOTSTRAP", "1"))
}

/// What valgrind can decode, with as few cases of each property as show something.
fn valgrind() -> Result {
    if workspace::find_program("valgrind").is_none() {
        return Err(Failure::new("valgrind is missing; it is your distribution's package of that name"));
    }
    let runner = format!("CARGO_TARGET_{}_RUNNER", target()?.to_uppercase().replace('-', "_"));
    let mut test = tests("valgrind", "--cfg sd_sanitize")?;
    test.args(["--", "--test-threads=1"]);
    test.env(runner, "valgrind --quiet --error-exitcode=9").env("PROPTEST_CASES", "2");
    run_command(&mut test)
}

/// The kernels' tests, built in a folder of their own.
fn tests(name: &str, flags: &str) -> Result<std::process::Command> {
    let folder = workspace::target_dir().join("sanitize").join(name);
    let mut test = cargo(["test", "--package", "sd-kernels", "--lib", "--tests", "--locked"]);
    test.args(["--target", &target()?]).arg("--target-dir").arg(folder).env("RUSTFLAGS", flags);
    Ok(test)
}

/// This machine, named, because flags for a named target do not reach the build scripts.
fn target() -> Result<String> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", arch @ ("x86_64" | "aarch64")) => Ok(format!("{arch}-unknown-linux-gnu")),
        (os, arch) => Err(Failure::new(format!("sanitizers are not set up for {os} on {arch}"))),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_unknown_sanitizer_is_refused() {
        let failure = super::run(&["memory".into()]).unwrap_err();
        assert_eq!(failure.to_string(), "there is no sanitizer `memory`: address, valgrind");
    }
}
