//! The files that hold weights.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use sd_models::lora::Lora;
use sd_models::{ModelFiles, inspect};

/// A folder in memory where there is one.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = tempfile::Builder::new().prefix("sd-fuzz").tempdir_in(parent).unwrap();
    folder.keep()
});

/// Any bytes that call themselves safetensors are recognised or refused with the file's name, by every reader of single
/// files, without a panic and without memory for what a header merely promises.
pub fn checkpoint(data: &[u8]) {
    let name = format!("{}-{:?}.safetensors", std::process::id(), std::thread::current().id());
    let path = FOLDER.join(name);
    fs::write(&path, data).unwrap();
    let errors = [
        inspect::file(&path).err().map(|error| error.to_string()),
        inspect::is_checkpoint(&path).err().map(|error| error.to_string()),
        ModelFiles::open(&path, None).err().map(|error| error.to_string()),
        Lora::open(&path).err().map(|error| error.to_string()),
    ];
    fs::remove_file(&path).unwrap();
    for error in errors.into_iter().flatten() {
        assert!(error.contains(".safetensors"), "an error that names no file: {error}");
    }
}
