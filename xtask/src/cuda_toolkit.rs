//! A CUDA compiler without a CUDA installation: pinned PyPI packages laid out as a toolkit folder.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::process::{Failure, Result};
use crate::{python, workspace};

/// What build scripts need to know of a toolkit.
pub(crate) struct Toolkit {
    /// The folder that holds `bin/nvcc`, `include` and `lib64`.
    pub(crate) home: PathBuf,
}

impl Toolkit {
    /// The toolkit that `CUDA_HOME` names, otherwise one from packages under `target/cuda-toolkit`.
    pub(crate) fn find_or_install() -> Result<Self> {
        if let Some(home) = std::env::var_os("CUDA_HOME").map(PathBuf::from) {
            if home.join("bin/nvcc").is_file() {
                return Ok(Self { home });
            }
            return Err(Failure::new(format!("CUDA_HOME is {}, which has no bin/nvcc", home.display())));
        }
        if !cfg!(target_os = "linux") {
            return Err(Failure::new(
                "the CUDA packages exist for Linux only: install CUDA and set CUDA_HOME",
            ));
        }
        let home = workspace::target_dir().join("cuda-toolkit");
        let environment = home.join("python");
        python::environment(&environment, &workspace::root().join("tools/cuda/requirements.txt"))?;
        lay_out(&packages(&environment)?, &home)?;
        Ok(Self { home })
    }

    pub(crate) fn nvcc(&self) -> PathBuf {
        self.home.join("bin/nvcc")
    }
}

/// Where the packages of a CUDA major version put their files: `lib/python3.x/site-packages/nvidia/cu13`.
fn packages(environment: &Path) -> Result<PathBuf> {
    let found = fs::read_dir(environment.join("lib"))?
        .filter_map(|entry| Some(entry.ok()?.path().join("site-packages/nvidia/cu13")))
        .find(|folder| folder.join("bin/nvcc").is_file());
    found.ok_or_else(|| Failure::new(format!("no nvcc among the packages in {}", environment.display())))
}

/// Makes `home` look like an installed toolkit: the packages' folders as they are, and a `lib64` with the unversioned
/// names that a linker looks for, which the packages leave out.
fn lay_out(packages: &Path, home: &Path) -> Result {
    for folder in ["bin", "include", "nvvm", "lib"] {
        link(&packages.join(folder), &home.join(folder))?;
    }
    let libraries = home.join("lib64");
    fs::create_dir_all(&libraries)?;
    for library in fs::read_dir(packages.join("lib"))? {
        let library = library?;
        let name = library.file_name().to_string_lossy().into_owned();
        link(&library.path(), &libraries.join(&name))?;
        if let Some((stem, _)) = name.split_once(".so.") {
            link(&library.path(), &libraries.join(format!("{stem}.so")))?;
        }
    }
    Ok(())
}

fn link(original: &Path, link: &Path) -> Result {
    if fs::symlink_metadata(link).is_ok() {
        fs::remove_file(link)?;
    }
    symlink(original, link).map_err(|error| Failure::new(format!("{}: {error}", link.display())))
}
