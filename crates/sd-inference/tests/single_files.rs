//! Pictures of single-file checkpoints are those of the folders, to the byte; so is what they are told to need.

#![allow(clippy::unwrap_used)]

#[path = "../../sd-models/tests/support/spelt.rs"]
mod spelt;
mod support;

use sd_inference::{Error, LoadOptions, MemoryLimit, ModelFiles, ModelSource, Pipeline};
use support::{FAMILIES, fixtures, images, pipeline, request, runs};

#[test]
fn a_single_file_draws_what_its_folder_draws() {
    for family in FAMILIES {
        let folder = tempfile::tempdir().unwrap();
        let config = ModelFiles::folder(fixtures(family).join("model")).unwrap();
        let files = ModelFiles::open(spelt::write(family, folder.path()), Some(config.clone())).unwrap();
        let single = Pipeline::load(&ModelSource::Files(files), &LoadOptions::default()).unwrap();
        let run = request(&runs(family, "runs.json")[0]);
        let expected = images(&pipeline(family, "model"), &run);
        assert!(images(&single, &run) == expected, "{family}");
        // The VAE of the same model, given by hand.
        let files = config.with_vae(folder.path().join("model.safetensors")).unwrap();
        let with_vae = Pipeline::load(&ModelSource::Files(files), &LoadOptions::default()).unwrap();
        assert!(images(&with_vae, &run) == expected, "{family} with its own VAE");
    }
}

#[test]
fn memory_is_told_and_refused_as_for_the_folder() {
    for family in FAMILIES {
        let folder = tempfile::tempdir().unwrap();
        let config = ModelFiles::folder(fixtures(family).join("model")).unwrap();
        let files = ModelFiles::open(spelt::write(family, folder.path()), Some(config.clone())).unwrap();
        let (single, whole) = (ModelSource::Files(files), ModelSource::Files(config));
        let estimate = |source| Pipeline::estimate_memory(source, &LoadOptions::default()).unwrap();
        assert_eq!(estimate(&single), estimate(&whole), "{family}");
        let options = LoadOptions {
            memory: MemoryLimit::Bytes(estimate(&single).total() - 1),
            ..LoadOptions::default()
        };
        let error = Pipeline::load(&single, &options).err().unwrap();
        assert!(matches!(error, Error::NotEnoughMemory { .. }), "{error}");
        assert!(error.to_string().contains("model.safetensors"), "{error}");
    }
}
