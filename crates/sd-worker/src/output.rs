//! Files that appear whole or not at all.

use std::io::Write;
use std::path::{Path, PathBuf};

use operations_contract::ImageFormat;
use tempfile::NamedTempFile;

use crate::exit::Failure;

/// Where the pictures of one run go. The place is tried before anything is computed.
pub(crate) struct OutputFiles {
    path: PathBuf,
    format: ImageFormat,
    /// Reserved beside the first file, so that a folder that cannot be written is found out at once.
    reserved: Option<NamedTempFile>,
}

impl OutputFiles {
    /// Checks that `path` can be written and that its ending names a format.
    pub(crate) fn reserve(path: &Path) -> Result<Self, Failure> {
        let refused = |reason: String| Failure::refused(format!("output {}: {reason}", path.display()));
        let format = format_of(path)?;
        if path.is_dir() {
            return Err(refused("is a folder".into()));
        }
        let reserved = NamedTempFile::new_in(folder(path)).map_err(|error| refused(error.to_string()))?;
        Ok(Self { path: path.to_owned(), format, reserved: Some(reserved) })
    }

    /// The format that the ending names.
    pub(crate) fn format(&self) -> ImageFormat {
        self.format
    }

    /// Writes the files: under the path itself, or numbered from 1 where there are several.
    pub(crate) fn write(mut self, images: &[&[u8]]) -> Result<Vec<PathBuf>, Failure> {
        let mut written = Vec::new();
        for (index, bytes) in images.iter().enumerate() {
            let path = if images.len() == 1 { self.path.clone() } else { numbered(&self.path, index + 1) };
            let failed =
                |error: std::io::Error| Failure::failed(format!("output {}: {error}", path.display()));
            let mut file = match self.reserved.take() {
                Some(file) => file,
                None => NamedTempFile::new_in(folder(&path)).map_err(failed)?,
            };
            file.write_all(bytes).map_err(failed)?;
            set_ordinary_permissions(&file);
            file.persist(&path).map_err(|error| failed(error.error))?;
            written.push(path);
        }
        Ok(written)
    }
}

/// The format that the ending of a file names.
pub(crate) fn format_of(path: &Path) -> Result<ImageFormat, Failure> {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    match extension.as_deref() {
        Some("png") => Ok(ImageFormat::Png),
        Some("jpg" | "jpeg") => Ok(ImageFormat::Jpeg),
        Some("webp") => Ok(ImageFormat::Webp),
        _ => Err(Failure::refused(format!(
            "output {}: the file's ending must be .png, .jpg, .jpeg or .webp",
            path.display()
        ))),
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `circle.png` as `circle-2.png`.
fn numbered(path: &Path, number: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{number}.{extension}"))
}

/// Temporary files are made for their owner alone; a finished picture is as readable as any other file.
fn set_ordinary_permissions(file: &NamedTempFile) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Failing here would lose a finished picture over its permissions.
        let _ = file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644));
    }
    #[cfg(not(unix))]
    let _ = file;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_files_are_numbered_before_the_ending() {
        assert_eq!(numbered(Path::new("a/circle.png"), 2), Path::new("a/circle-2.png"));
    }

    #[test]
    fn nothing_is_left_behind_when_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        drop(OutputFiles::reserve(&folder.path().join("a.png")).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn files_replace_what_was_there_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        std::fs::write(&path, "old and longer").unwrap();
        let written = OutputFiles::reserve(&path).unwrap().write(&[b"new"]).unwrap();
        assert_eq!(written, std::slice::from_ref(&path));
        assert_eq!(std::fs::read(path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn places_that_cannot_be_written_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        for path in
            [folder.path().join("nowhere/a.png"), folder.path().join("a.txt"), folder.path().to_owned()]
        {
            assert!(OutputFiles::reserve(&path).is_err(), "{}", path.display());
        }
    }
}
