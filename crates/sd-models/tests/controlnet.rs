//! ControlNets against the residuals that diffusers computed (`fixtures/<family>/controls.safetensors`, made by
//! `tools/reference`), in every form in which they are kept.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "support/controlnet.rs"]
mod support;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use sd_models::ModelFiles;
use sd_models::controlnet::{ControlNetModel, Emphasis, OpenedControlNet};
use sd_models::nn::Seamless;
use sd_models::unet::{AddedCondition, Residuals, UnetConfig};

/// The largest difference relative to the largest expected value.
const TOLERANCE: f32 = 1e-4;
const FAMILIES: [&str; 3] = ["sd15", "sd21", "sdxl"];

fn fixtures(family: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).join(family)
}

fn unet(family: &str) -> UnetConfig {
    ModelFiles::folder(fixtures(family).join("model")).unwrap().json("unet/config.json").unwrap()
}

fn open(family: &str, path: &Path) -> sd_models::Result<ControlNetModel> {
    let opened = OpenedControlNet::open(path, &Device::Cpu, DType::F32)?;
    opened.load(opened.config(&unet(family))?)
}

/// The inputs of one case.
struct Case {
    tensors: HashMap<String, Tensor>,
    timesteps: Vec<f64>,
    emphasis: Emphasis,
}

impl Case {
    fn read(family: &str, name: &str) -> Self {
        let read = |file: &str, prefix: String| {
            let all = candle_core::safetensors::load(fixtures(family).join(file), &Device::Cpu).unwrap();
            all.into_iter().filter_map(move |(key, t)| Some((key.strip_prefix(&prefix)?.to_owned(), t)))
        };
        let tensors: HashMap<_, _> = read("expected.safetensors", format!("unet/{name}/"))
            .chain(read("controls.safetensors", format!("{name}/")))
            .collect();
        let timesteps = tensors["timestep"].to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect();
        let notes = std::fs::read_to_string(fixtures(family).join("controls.json")).unwrap();
        let notes: serde_json::Value = serde_json::from_str(&notes).unwrap();
        let scale = notes["cases"][name]["conditioning_scale"].as_f64().unwrap();
        let emphasis = match notes["cases"][name]["guess_mode"].as_bool().unwrap() {
            true => Emphasis::Rising(scale),
            false => Emphasis::Even(scale),
        };
        Self { tensors, timesteps, emphasis }
    }

    fn added(&self) -> Option<AddedCondition> {
        let text_embeds = self.tensors.get("text_embeds")?.clone();
        let ids = self.tensors["time_ids"].to_vec2::<f32>().unwrap();
        let time_ids = ids.iter().map(|row| row.iter().map(|id| f64::from(*id)).collect()).collect();
        Some(AddedCondition { text_embeds, time_ids })
    }

    fn run(&self, net: &ControlNetModel) -> Residuals {
        let cond = &self.tensors["cond"];
        let (_, _, height, width) = cond.dims4().unwrap();
        let hint =
            net.embed(&cond.upsample_nearest2d(4 * height, 4 * width).unwrap(), Seamless::default()).unwrap();
        let (sample, context) = (&self.tensors["sample"], &self.tensors["context"]);
        net.forward(sample, &self.timesteps, context, self.added().as_ref(), &hint, self.emphasis).unwrap()
    }
}

fn values(residuals: &Residuals) -> Vec<Vec<f32>> {
    residuals
        .maps()
        .map(|map| map.to_nchw().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap())
        .collect()
}

#[test]
fn the_residuals_are_those_of_the_reference() {
    for family in FAMILIES {
        let folder = tempfile::tempdir().unwrap();
        support::folder(&fixtures(family), "net", folder.path());
        let net = open(family, folder.path()).unwrap();
        for name in ["single", "odd"] {
            let case = Case::read(family, name);
            let residuals = case.run(&net);
            let maps: Vec<_> = residuals.maps().collect();
            assert!(maps.len() > 4);
            for (index, map) in maps.iter().enumerate() {
                let key = if index + 1 < maps.len() { format!("down_{index}") } else { "mid".into() };
                let (expected, found) = (&case.tensors[&key], map.to_nchw().unwrap());
                assert_eq!(found.dims(), expected.dims(), "{family} {name} {key}");
                let largest = |t: &Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                let relative = largest(&(&found - expected).unwrap()) / largest(expected);
                println!("{family} {name} {key}: relative difference {relative:e}");
                assert!(relative <= TOLERANCE, "{family} {name} {key}: relative difference {relative:e}");
            }
            assert!(!case.tensors.contains_key(&format!("down_{}", maps.len() - 1)), "one is missing");
        }
    }
}

#[test]
fn single_files_of_either_naming_hold_the_same_net() {
    let (family, folder) = (fixtures("sd15"), tempfile::tempdir().unwrap());
    support::folder(&family, "net", &folder.path().join("net"));
    let case = Case::read("sd15", "single");
    let expected = values(&case.run(&open("sd15", &folder.path().join("net")).unwrap()));
    let originals = support::original_names(&family);
    let path = folder.path().join("net.safetensors");
    for form in ["diffusers", "first release", "first release, without a prefix"] {
        support::file(&family, "net", &path, |name| match form {
            "diffusers" => name.to_owned(),
            "first release" => originals[name].clone(),
            _ => originals[name].replacen("control_model.", "", 1),
        });
        assert_eq!(values(&case.run(&open("sd15", &path).unwrap())), expected, "{form}");
    }
}

/// A batch gives each of its samples what it gives alone, to the last bit.
#[test]
fn a_batch_equals_its_samples_one_by_one() {
    for family in FAMILIES {
        let folder = tempfile::tempdir().unwrap();
        support::folder(&fixtures(family), "net", folder.path());
        let net = open(family, folder.path()).unwrap();
        let case = Case::read(family, "single");
        let (_, _, height, width) = case.tensors["cond"].dims4().unwrap();
        let picture = case.tensors["cond"].upsample_nearest2d(4 * height, 4 * width).unwrap();
        let hint = net.embed(&picture, Seamless::default()).unwrap();
        let alone = case.run(&net);

        let twice = |key: &str| {
            let tensor = &case.tensors[key];
            Tensor::cat(&[&(tensor * 0.5).unwrap(), tensor], 0).unwrap()
        };
        let added = case.added().map(|added| AddedCondition {
            text_embeds: twice("text_embeds"),
            time_ids: [added.time_ids.clone(), added.time_ids].concat(),
        });
        let timesteps = [20.0, case.timesteps[0]];
        let (sample, context) = (twice("sample"), twice("context"));
        let both = net.forward(&sample, &timesteps, &context, added.as_ref(), &hint, case.emphasis).unwrap();
        for (alone, both) in values(&alone).into_iter().zip(values(&both)) {
            assert_eq!(both.len(), 2 * alone.len());
            assert_eq!(both[alone.len()..], alone, "{family}");
        }
    }
}

/// Where edges meet, a net says the same of a scene that is moved around them, moved as far.
#[test]
fn edges_meet_for_nets_as_well() {
    let moved = |tensor: &Tensor, rows: usize, columns: usize| {
        let around = |tensor: &Tensor, axis: usize, by: usize| {
            let length = tensor.dim(axis).unwrap();
            let parts = [tensor.narrow(axis, by, length - by), tensor.narrow(axis, 0, by)];
            Tensor::cat(&parts.map(Result::unwrap), axis).unwrap()
        };
        around(&around(tensor, 2, rows), 3, columns)
    };
    let folder = tempfile::tempdir().unwrap();
    support::folder(&fixtures("sd15"), "net", folder.path());
    let net = open("sd15", folder.path()).unwrap();
    let case = Case::read("sd15", "single");
    let (_, _, height, width) = case.tensors["cond"].dims4().unwrap();
    let picture = case.tensors["cond"].upsample_nearest2d(4 * height, 4 * width).unwrap();
    let (sample, context) = (&case.tensors["sample"], &case.tensors["context"]);
    let seamless = Seamless { x: true, y: true };
    let run = |sample: &Tensor, picture: &Tensor| {
        let hint = net.embed(picture, seamless).unwrap();
        net.forward(sample, &case.timesteps, context, None, &hint, case.emphasis).unwrap()
    };
    let still = run(sample, &picture);
    let around = run(&moved(sample, 2, 4), &moved(&picture, 16, 32));
    for (still, around) in still.maps().zip(around.maps()) {
        let (_, _, height, width) = still.dims();
        let expected = moved(&still.to_nchw().unwrap(), height / 4, width / 2);
        let difference = (&around.to_nchw().unwrap() - &expected).unwrap();
        let largest = |t: &Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(largest(&difference) <= 1e-5 * largest(&expected), "{}", largest(&difference));
    }
    let bounded = case.run(&net);
    assert_ne!(values(&bounded), values(&still));
}

#[test]
fn what_is_no_net_of_this_model_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let refused = |family: &str, name: &str| open(family, &path(name)).err().unwrap().to_string();
    support::folder(&fixtures("sd15"), "net", &path("net"));

    let config = std::fs::read_to_string(path("net/config.json")).unwrap();
    for (from, to, field) in [
        ("\"global_pool_conditions\": false", "\"global_pool_conditions\": true", "global_pool_conditions"),
        ("\"ControlNetModel\"", "\"ControlNetUnionModel\"", "_class_name"),
        ("\"rgb\"", "\"gbr\"", "controlnet_conditioning_channel_order"),
        ("\"conditioning_channels\": 3", "\"conditioning_channels\": 1", "conditioning_channels"),
    ] {
        assert!(config.contains(from), "{from}");
        std::fs::write(path("net/config.json"), config.replace(from, to)).unwrap();
        let error = refused("sd15", "net");
        assert!(error.contains(field) && error.contains("config.json"), "{error}");
    }
    std::fs::remove_file(path("net/config.json")).unwrap();
    assert!(refused("sd15", "net").contains("config.json"));

    assert!(refused("sd15", "nowhere").contains("no such file or folder"));
    std::fs::write(path("net.pth"), "PK\u{3}\u{4}").unwrap();
    assert!(refused("sd15", "net.pth").contains("pickle"));
    std::fs::write(path("text.safetensors"), "hello").unwrap();
    assert!(refused("sd15", "text.safetensors").contains("safetensors"));
    let unet = fixtures("sd15").join("model/unet/diffusion_pytorch_model.safetensors");
    std::fs::copy(unet, path("unet.safetensors")).unwrap();
    assert!(refused("sd15", "unet.safetensors").contains("controlnet_cond_embedding"));

    // A single file is read as a copy of the UNet that it is to control.
    support::file(&fixtures("sd15"), "net", &path("net.safetensors"), |name| name.to_owned());
    let error = refused("sdxl", "net.safetensors");
    assert!(error.contains("net.safetensors") && error.contains("tensor"), "{error}");
}

#[test]
fn a_net_for_another_model_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    for family in FAMILIES {
        let path = folder.path().join(family);
        support::folder(&fixtures(family), "net", &path);
        let opened = OpenedControlNet::open(&path, &Device::Cpu, DType::F32).unwrap();
        for other in FAMILIES {
            let scale = if other == "sd21" { 4 } else { 8 };
            let fits = opened.config(&unet(other)).unwrap().check_fits(&unet(other), 4, scale, opened.file());
            assert_eq!(fits.is_ok(), family == other, "{family} for {other}");
        }
    }
}
