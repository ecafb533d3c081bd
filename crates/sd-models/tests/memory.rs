//! The memory that is told before a part is loaded, against what the loaded part really holds.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "support/controlnet.rs"]
mod support;

use std::alloc::System;
use std::path::Path;

use candle_core::{DType, Device};
use sd_models::clip::ClipTextModel;
use sd_models::controlnet::OpenedControlNet;
use sd_models::unet::Unet2DConditionModel;
use sd_models::vae::AutoencoderKl;
use sd_models::{ModelFiles, Weights};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The bytes that live on after `load`, as long as its result does.
fn held<T>(load: impl Fn() -> T) -> u64 {
    // The first load starts threads and fills caches.
    drop(load());
    let region = Region::new(ALLOCATOR);
    let loaded = load();
    let change = region.change();
    drop(loaded);
    (change.bytes_allocated - change.bytes_deallocated) as u64
}

/// One test alone in this file: the allocator counts for the whole process.
#[test]
fn a_loaded_part_holds_what_was_told_before() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    for (model, encoders) in [
        ("fixtures/sd15/model", 1),
        ("fixtures/sd21/model", 1),
        ("fixtures/sdxl/model", 2),
        ("models/demo", 1),
    ] {
        let files = ModelFiles::folder(root.join(model)).unwrap();
        for dtype in [DType::F32, DType::BF16] {
            let open = |folder: &str, stem| Weights::open(&files, folder, stem, &Device::Cpu, dtype).unwrap();
            let (unet, vae) =
                (open("unet", "diffusion_pytorch_model"), open("vae", "diffusion_pytorch_model"));
            let (mut told, mut found) = (unet.loaded_bytes() + vae.loaded_bytes(), 0);
            found += held(|| {
                Unet2DConditionModel::load(&unet, files.json("unet/config.json").unwrap(), "unet").unwrap()
            });
            found +=
                held(|| AutoencoderKl::load(&vae, files.json("vae/config.json").unwrap(), "vae").unwrap());
            for folder in ["text_encoder", "text_encoder_2"].iter().take(encoders) {
                let weights = open(folder, "model");
                told += weights.loaded_bytes();
                let config = format!("{folder}/config.json");
                found +=
                    held(|| ClipTextModel::load(&weights, files.json(&config).unwrap(), folder).unwrap());
            }
            let family = root.join(model).join("..");
            if family.join("controlnet").is_dir() {
                let folder = tempfile::tempdir().unwrap();
                support::folder(&family, "net", folder.path());
                let net = OpenedControlNet::open(folder.path(), &Device::Cpu, dtype).unwrap();
                told += net.loaded_bytes();
                let unet = files.json("unet/config.json").unwrap();
                found += held(|| net.load(net.config(&unet).unwrap()).unwrap());
            }
            println!("{model} in {dtype:?}: told {told}, found {found}");
            // Tensors of tiny models are small beside what manages them, the names of the layers for instance.
            let ratio = told as f64 / found as f64;
            assert!((0.9..=1.0).contains(&ratio), "{model} in {dtype:?}: told {told}, found {found}");
        }
    }
}
