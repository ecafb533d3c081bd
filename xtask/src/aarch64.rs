//! `cargo xtask aarch64`: the kernels' tests on another processor than x86-64, emulated by qemu.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Failure, Result, cargo, run as run_command};
use crate::stages::Stages;
use crate::workspace;

pub(crate) const HELP: &str = "Run the kernels' tests on an emulated aarch64, and type-check the worker for it\n\
     Linux. Needs qemu-aarch64-static and aarch64-linux-gnu-gcc (Debian: qemu-user-static, gcc-aarch64-linux-gnu),\n\
     and either `rustup target add aarch64-unknown-linux-gnu` or a compiler with the standard library's source:\n\
     `RUSTC=/usr/bin/rustc /usr/bin/cargo xtask aarch64` with Debian's rustc-web, cargo-web and rust-web-src.";

const TARGET: &str = "aarch64-unknown-linux-gnu";
/// Where Debian's cross compiler has the C library that the tests are linked to.
const LIBRARIES: &str = "/usr/aarch64-linux-gnu";

pub(crate) fn run(arguments: &[String]) -> Result {
    if let Some(unknown) = arguments.first() {
        return Err(Failure::new(format!("`aarch64` takes no arguments, not `{unknown}`")));
    }
    for (program, package) in
        [("qemu-aarch64-static", "qemu-user-static"), ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")]
    {
        if workspace::find_program(program).is_none() {
            return Err(Failure::new(format!("{program} is missing; Debian has it in {package}")));
        }
    }
    let standard_library = standard_library()?;
    let mut stages = Stages::default();
    stages.run("tests", || {
        let mut test = build("test", &standard_library);
        test.args(["--package", "sd-kernels", "--lib", "--tests"]);
        if std::env::var_os("PROPTEST_CASES").is_none() {
            // As few cases of each property as show something: emulation takes its time.
            test.env("PROPTEST_CASES", "4");
        }
        run_command(&mut test)
    });
    stages.run("check", || run_command(build("check", &standard_library).args(["--package", "sd-worker"])));
    stages.finish()
}

/// Whence the target's standard library comes.
enum StandardLibrary {
    Installed,
    /// The compiler brings its source.
    Built,
}

fn standard_library() -> Result<StandardLibrary> {
    if printed("target-libdir")?.is_dir() {
        return Ok(StandardLibrary::Installed);
    }
    if printed("sysroot")?.join("lib/rustlib/src/rust/library/std").is_dir() {
        return Ok(StandardLibrary::Built);
    }
    Err(Failure::new(format!("there is no standard library for it: `rustup target add {TARGET}`")))
}

/// A path that the compiler prints.
fn printed(what: &str) -> Result<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", what, "--target", TARGET]).output()?;
    Ok(Path::new(String::from_utf8_lossy(&output.stdout).trim()).to_owned())
}

/// A cargo command for the target.
fn build(command: &str, standard_library: &StandardLibrary) -> Command {
    let mut build = cargo([command, "--locked", "--target", TARGET]);
    if let StandardLibrary::Built = standard_library {
        build.arg("-Zbuild-std=std,panic_abort").env("RUSTC_BOOTSTRAP", "1");
    }
    let runner = format!("qemu-aarch64-static -L {LIBRARIES}");
    build.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", runner);
    build.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
    build
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_argument_is_refused() {
        let failure = super::run(&["--release".into()]).unwrap_err();
        assert_eq!(failure.to_string(), "`aarch64` takes no arguments, not `--release`");
    }
}
