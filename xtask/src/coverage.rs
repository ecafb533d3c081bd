//! `cargo xtask coverage`: how many lines of the worker's crates their own tests run.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::process::{Failure, Result, cargo, run as run_command, succeeds};
use crate::workspace;

pub(crate) const HELP: &str = "Print the line coverage of operations-contract, sd-engine, sd-http and sd-worker: [--files]\n\
     Runs the tests of these crates with counters compiled in, counts the lines of src/ without the test modules, and\n\
     fails below 80 percent. --files lists every file, the least covered first. A run of some minutes.\n\
     Takes llvm-tools from rustup; third-party crates are those of the ordinary build.";

/// The crates that are measured, and all that is instrumented: counters in the kernels would slow every test.
const CRATES: [&str; 4] = ["operations-contract", "sd-engine", "sd-http", "sd-worker"];
const PERCENT: usize = 80;
/// Set for cargo, so that this program knows that it is called in rustc's place.
const WRAPPER: &str = "XTASK_COVERAGE_RUSTC";

pub(crate) fn run(arguments: &[String]) -> Result {
    let by_file = match arguments {
        [] => false,
        [flag] if flag == "--files" => true,
        _ => return Err(Failure::new("usage: cargo xtask coverage [--files]")),
    };
    let tools = llvm_tools()?;
    let folder = workspace::target_dir().join("coverage");
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => fs::create_dir_all(&folder)?,
    }
    let programs = build()?;
    run_command(&mut instrumented("test", &["--no-fail-fast"], &folder)?)?;
    let lines = read_lcov(&export(&tools, &folder, &programs)?, workspace::root())?;
    if by_file {
        print_files(&lines);
    }
    print_crates(&lines)
}

/// In rustc's place for the workspace's crates: the measured ones get counters. `None` when called as a task.
pub(crate) fn as_rustc() -> Option<ExitCode> {
    std::env::var_os(WRAPPER)?;
    let mut arguments = std::env::args_os().skip(1);
    let mut rustc = Command::new(arguments.next()?);
    rustc.args(arguments);
    if std::env::var("CARGO_PKG_NAME").is_ok_and(|name| CRATES.contains(&name.as_str())) {
        rustc.args(["-C", "instrument-coverage"]);
    }
    let code = rustc.status().ok().and_then(|status| status.code()).and_then(|code| u8::try_from(code).ok());
    Some(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The folder of llvm-profdata and llvm-cov that belong to the compiler.
fn llvm_tools() -> Result<PathBuf> {
    let ask = |what: [&str; 2]| -> Result<String> {
        let output = Command::new("rustc").args(what).current_dir(workspace::root()).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let version = ask(["--version", "--verbose"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    let folder = Path::new(&ask(["--print", "sysroot"])?).join("lib/rustlib").join(host).join("bin");
    if folder.join("llvm-cov").is_file()
        || succeeds(
            Command::new("rustup").args(["component", "add", "llvm-tools"]).current_dir(workspace::root()),
        )
    {
        return Ok(folder);
    }
    Err(Failure::new("llvm-tools is missing: rustup component add llvm-tools"))
}

/// A cargo command over the measured crates whose programs write counters to `folder` when they end.
fn instrumented(command: &str, arguments: &[&str], folder: &Path) -> Result<Command> {
    let mut cargo = cargo([command, "--locked", "--lib", "--bins", "--tests"]);
    cargo.args(CRATES.iter().flat_map(|name| ["--package", name])).args(arguments);
    cargo.env("RUSTC_WORKSPACE_WRAPPER", std::env::current_exe()?).env(WRAPPER, "1");
    // A few files for each program, into which its processes add up.
    cargo.env("LLVM_PROFILE_FILE", folder.join("%4m.profraw"));
    Ok(cargo)
}

/// Compiles the tests and the worker; where the programs are.
fn build() -> Result<Vec<PathBuf>> {
    let arguments = ["--no-run", "--message-format=json-render-diagnostics"];
    // Build scripts and macros are not what is measured.
    let mut command = instrumented("test", &arguments, &workspace::target_dir().join("coverage/build"))?;
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(Failure::new("the tests do not compile"));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    Ok(messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).collect())
}

/// What was counted, in lcov's text format.
fn export(tools: &Path, folder: &Path, programs: &[PathBuf]) -> Result<String> {
    let merged = folder.join("all.profdata");
    // A process that a test killed may have left half a file; only if none can be read is that a failure.
    let mut merge = Command::new(tools.join("llvm-profdata"));
    merge.args(["merge", "--sparse", "--failure-mode=all", "-o"]).arg(&merged);
    merge.args(raw_files(folder)?);
    run_command(&mut merge)?;
    let mut export = Command::new(tools.join("llvm-cov"));
    export.args(["export", "--format=lcov", "--instr-profile"]).arg(&merged);
    export.args(programs.iter().flat_map(|program| [OsString::from("--object"), program.into()]));
    let output = export.stderr(Stdio::inherit()).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Failure::new("llvm-cov could not read the counters")),
    }
}

fn raw_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "profraw") {
            files.push(path);
        }
    }
    Ok(files)
}

/// Lines that ran and lines that can run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Lines {
    covered: usize,
    all: usize,
}

impl Lines {
    fn add(&mut self, other: Self) {
        self.covered += other.covered;
        self.all += other.all;
    }

    fn percent(self) -> f64 {
        100.0 * self.covered as f64 / self.all.max(1) as f64
    }
}

/// The counts of each source file of the measured crates, without what follows `#[cfg(test)]`: test modules stand
/// last in a file, run by their nature, and would flatter.
fn read_lcov(text: &str, root: &Path) -> Result<BTreeMap<PathBuf, Lines>> {
    let mut files = BTreeMap::<PathBuf, Lines>::new();
    let (mut file, mut end) = (None, usize::MAX);
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            let path = Path::new(path).strip_prefix(root).unwrap_or(Path::new(path));
            let measured = CRATES.iter().any(|name| path.starts_with(format!("crates/{name}/src")));
            file = (measured && path.file_name().is_some_and(|name| name != "tests.rs"))
                .then(|| path.to_owned());
            if let Some(path) = &file {
                end = first_test_line(&fs::read_to_string(root.join(path))?);
            }
        } else if let (Some(path), Some(data)) = (&file, line.strip_prefix("DA:")) {
            let mut numbers = data.split(',').map(str::parse::<usize>);
            if let (Some(Ok(number)), Some(Ok(count))) = (numbers.next(), numbers.next())
                && number < end
            {
                let lines = Lines { covered: usize::from(count > 0), all: 1 };
                files.entry(path.clone()).or_default().add(lines);
            }
        }
    }
    Ok(files)
}

/// The number of the line with which the test module begins, counted from 1.
fn first_test_line(source: &str) -> usize {
    let lines: Vec<&str> = source.lines().collect();
    let start = lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{'));
    start.map_or(usize::MAX, |index| index + 1)
}

fn print_files(files: &BTreeMap<PathBuf, Lines>) {
    let mut files: Vec<_> = files.iter().collect();
    files.sort_by(|(_, a), (_, b)| a.percent().total_cmp(&b.percent()));
    for (path, lines) in files {
        println!("{:>6.1} %  {:>5} of {:>5}  {}", lines.percent(), lines.covered, lines.all, path.display());
    }
    println!();
}

fn print_crates(files: &BTreeMap<PathBuf, Lines>) -> Result {
    let mut below = Vec::new();
    for name in CRATES {
        let mut lines = Lines::default();
        files.iter().filter(|(path, _)| path.starts_with(format!("crates/{name}"))).for_each(|(_, more)| {
            lines.add(*more);
        });
        println!("{name:<20} {:>5.1} %  {} of {} lines", lines.percent(), lines.covered, lines.all);
        if lines.covered * 100 < PERCENT * lines.all || lines.all == 0 {
            below.push(name);
        }
    }
    match below.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(format!("below {PERCENT} percent: {}", below.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_outside_tests_are_counted_once() {
        let root = std::env::temp_dir().join(format!("xtask-coverage-{}", std::process::id()));
        let source = root.join("crates/sd-http/src");
        fs::create_dir_all(&source).unwrap();
        fs::write(source.join("a.rs"), "fn a() {\n}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n").unwrap();
        let at = root.display();
        let text = format!(
            "SF:{at}/crates/sd-http/src/a.rs\nDA:1,3\nDA:2,0\nDA:5,1\nend_of_record\n\
             SF:{at}/crates/sd-models/src/b.rs\nDA:1,1\nend_of_record\n\
             SF:{at}/crates/sd-http/tests/it/c.rs\nDA:1,1\nend_of_record\n"
        );
        let files = read_lcov(&text, &root).unwrap();
        fs::remove_dir_all(&root).unwrap();
        let expected = (PathBuf::from("crates/sd-http/src/a.rs"), Lines { covered: 1, all: 2 });
        assert_eq!(files.into_iter().collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn too_little_is_a_failure_that_names_the_crate() {
        let file = |name: &str, covered| {
            (PathBuf::from(format!("crates/{name}/src/lib.rs")), Lines { covered, all: 10 })
        };
        let mut files: BTreeMap<_, _> = CRATES.map(|name| file(name, 8)).into();
        assert!(print_crates(&files).is_ok());
        files.extend([file("sd-http", 7)]);
        assert_eq!(print_crates(&files).unwrap_err().to_string(), "below 80 percent: sd-http");
    }
}
