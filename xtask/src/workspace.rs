//! Where things are.

use std::path::{Path, PathBuf};

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// The target folder in use, wherever `CARGO_TARGET_DIR` or a configuration file put it: two levels above this
/// executable, which is `target/debug/xtask`.
pub(crate) fn target_dir() -> PathBuf {
    let from_executable =
        std::env::current_exe().ok().and_then(|path| Some(path.parent()?.parent()?.to_owned()));
    from_executable.unwrap_or_else(|| root().join("target"))
}

/// An executable of this name in `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}
