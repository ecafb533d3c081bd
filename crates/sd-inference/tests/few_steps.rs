//! Models for few steps as they are published: a UNet alone over a whole model, with the settings that it was made for,
//! against diffusers' pictures (`fixtures/few_steps`, made by `tools/reference`).

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sd_inference::{GenerationRequest, LoadOptions, ModelFiles, ModelSource, Pipeline};
use serde_json::Value;

use support::{TOLERANCE, copy, fixtures, images, largest_difference, request, runs};

/// What the weights of the way down are multiplied by.
const SHARE: f32 = 0.75;

/// Writes the UNet of the runs as a file in diffusers' naming.
fn unet_file(guided: bool, folder: &Path) -> PathBuf {
    let own = std::fs::read(fixtures("sdxl").join("model/unet/diffusion_pytorch_model.safetensors")).unwrap();
    let more = std::fs::read(fixtures("few_steps").join("cond_proj.safetensors")).unwrap();
    let (own, more) = (SafeTensors::deserialize(&own).unwrap(), SafeTensors::deserialize(&more).unwrap());
    let values = |name: &str, view: &TensorView<'_>| -> Vec<u8> {
        let share = if name.starts_with("down_blocks.") { SHARE } else { 1.0 };
        let values = view.data().as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value) * share);
        values.flat_map(f32::to_le_bytes).collect()
    };
    let all = own.tensors().into_iter().chain(more.tensors().into_iter().filter(|_| guided));
    let tensors: Vec<_> =
        all.map(|(name, view)| (values(&name, &view), name, view.shape().to_vec())).collect();
    let views = tensors
        .iter()
        .map(|(bytes, name, shape)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let path = folder.join("unet_only.safetensors");
    safetensors::serialize_to_file(views, None, &path).unwrap();
    path
}

fn with_unet(path: &Path) -> Pipeline {
    let files = ModelFiles::folder(fixtures("sdxl").join("model")).unwrap().with_unet(path).unwrap();
    Pipeline::load(&ModelSource::Files(files), &LoadOptions::default()).unwrap()
}

#[test]
fn a_unet_alone_gives_the_reference_picture() {
    let folder = tempfile::tempdir().unwrap();
    for (unet, guided) in [("plain", false), ("guided", true)] {
        let pipeline = with_unet(&unet_file(guided, folder.path()));
        assert_eq!(pipeline.info().guidance_embedding, guided);
        let runs: Vec<Value> =
            runs("few_steps", "few_steps.json").into_iter().filter(|run| run["unet"] == unet).collect();
        assert!(runs.len() > 1);
        for run in runs {
            let file = run["files"][0].as_str().unwrap();
            let expected = image::open(fixtures("few_steps").join(file)).unwrap().to_rgb8();
            let difference = largest_difference(&expected, &images(&pipeline, &request(&run))[0]);
            println!("{file}: largest difference {difference} of 255");
            assert!(difference <= TOLERANCE, "{file}: differs by {difference} of 255");
        }
    }
}

/// A folder with the UNet and its configuration, and a whole model, give what the file gives.
#[test]
fn a_unet_is_the_same_from_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = unet_file(true, folder.path());
    let whole = folder.path().join("whole");
    copy(&fixtures("sdxl").join("model"), &whole);
    std::fs::copy(&file, whole.join("unet/diffusion_pytorch_model.safetensors")).unwrap();
    let path = whole.join("unet/config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["time_cond_proj_dim"] = 16.into();
    std::fs::write(path, config.to_string()).unwrap();

    let request =
        GenerationRequest { sampler: Some("lcm".parse().unwrap()), ..GenerationRequest::new("a star") };
    let wanted = images(&with_unet(&file), &request);
    for path in [whole.join("unet"), whole] {
        assert!(images(&with_unet(&path), &request) == wanted, "{}", path.display());
    }
}
