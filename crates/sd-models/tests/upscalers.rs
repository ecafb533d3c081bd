//! Upscaling networks against a definition of their own in torch (`fixtures/upscalers`, made by `tools/reference`), and the
//! law of tiles.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use sd_models::esrgan::{RrdbNet, TiledUpscale, UpscaleTiles};
use sd_models::nn::Seamless;
use serde_json::Value;

/// The largest difference relative to the largest expected value.
const TOLERANCE: f32 = 1e-4;

fn fixtures() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/upscalers"))
}

fn network(name: &str) -> RrdbNet {
    RrdbNet::open(&fixtures().join(format!("{name}.safetensors")), &Device::Cpu, DType::F32).unwrap()
}

fn largest(tensor: &Tensor) -> f32 {
    tensor.abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

/// A picture with edges and slow changes, in 0..=1.
fn picture(height: usize, width: usize) -> Tensor {
    let pixel = |channel: usize, y: usize, x: usize| {
        let wave = ((x * (channel + 2)) as f32 / 9.0).sin() * ((y + 3 * channel) as f32 / 7.0).cos();
        let edge = if (x / 13 + y / 11) % 3 == channel { 0.3 } else { 0.0 };
        (0.35 + 0.3 * wave + edge).clamp(0.0, 1.0)
    };
    let values: Vec<f32> =
        (0..3 * height * width).map(|i| pixel(i / (height * width), i / width % height, i % width)).collect();
    Tensor::from_vec(values, (1, 3, height, width), &Device::Cpu).unwrap()
}

/// Training programs wrap the network, in one name or in two forms of which the averaged one counts.
#[test]
fn a_wrapped_network_is_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let notes = std::fs::read_to_string(fixtures().join("expected.json")).unwrap();
    let notes: Value = serde_json::from_str(&notes).unwrap();
    let image = picture(16, 24);
    for name in notes["networks"].as_object().unwrap().keys() {
        let file = fixtures().join(format!("{name}.safetensors"));
        let stored = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
        let expected = network(name).forward(&image).unwrap();
        for wrappers in [vec!["module"], vec!["params"], vec!["params", "params_ema"]] {
            let last = *wrappers.last().unwrap();
            let wrapped: HashMap<String, Tensor> = wrappers
                .iter()
                .flat_map(|wrapper| {
                    stored.iter().map(move |(name, tensor)| {
                        let tensor =
                            if *wrapper == last { tensor.clone() } else { tensor.zeros_like().unwrap() };
                        (format!("{wrapper}.{name}"), tensor)
                    })
                })
                .collect();
            let path = folder.path().join("wrapped.safetensors");
            candle_core::safetensors::save(&wrapped, &path).unwrap();
            let network = RrdbNet::open(&path, &Device::Cpu, DType::F32).unwrap();
            let found = network.forward(&image).unwrap();
            assert_eq!(largest(&(found - &expected).unwrap()), 0.0, "{name} in {wrappers:?}");
        }
    }
}

#[test]
fn networks_of_every_naming_and_scale_give_what_the_definition_gives() {
    let notes = std::fs::read_to_string(fixtures().join("expected.json")).unwrap();
    let notes: Value = serde_json::from_str(&notes).unwrap();
    let expected: HashMap<String, Tensor> =
        candle_core::safetensors::load(fixtures().join("expected.safetensors"), &Device::Cpu).unwrap();
    let networks = notes["networks"].as_object().unwrap();
    assert!(networks.len() >= 7, "too few networks to mean anything");
    for (name, row) in networks {
        let network = network(name);
        assert_eq!(network.scale() as u64, row["scale"].as_u64().unwrap(), "{name}");
        let found = network.forward(&expected["image"]).unwrap();
        let expected = &expected[name.as_str()];
        assert_eq!(found.dims(), expected.dims(), "{name}");
        let relative = largest(&(&found - expected).unwrap()) / largest(expected);
        println!("{name}: relative difference {relative:e}");
        assert!(relative <= TOLERANCE, "{name}: relative difference {relative:e}");
    }
}

/// The law of tiles: with a margin whose outer half is as wide as the network reaches, the tiles give what the whole
/// picture gives, wherever they meet.
#[test]
fn tiles_that_see_far_enough_give_the_whole_picture() {
    for name in ["numbered_2x", "basic_2x", "numbered_1x"] {
        let network = network(name);
        let margin = 2 * network.reach();
        let tiles = UpscaleTiles::new(4 * margin, margin).unwrap();
        let picture = picture(24, 8 * margin + 10);
        let count = tiles.count(24, 8 * margin + 10, network.size_multiple(), Seamless::default());
        assert!(count >= 4);
        let mut told = Vec::new();
        let tiled = network.upscale(&picture, tiles, &mut |done, total| told.push((done, total))).unwrap();
        let whole = network.forward(&picture).unwrap();
        assert_eq!(tiled.dims(), whole.dims());
        assert_eq!(told, (1..=count).map(|done| (done, count)).collect::<Vec<_>>(), "all tiles are told");
        let difference = largest(&(&tiled - &whole).unwrap());
        println!("{name}: {difference:e}");
        assert!(difference <= 1e-5 * largest(&whole), "{name}: differs by {difference:e}");
    }
}

/// With less margin there is a difference, and it is too small to see.
#[test]
fn small_margins_leave_no_seam_to_see() {
    let network = network("basic_4x");
    let picture = picture(150, 170);
    let whole = network.forward(&picture).unwrap();
    let tiled = network.upscale(&picture, UpscaleTiles::new(64, 16).unwrap(), &mut |_, _| {}).unwrap();
    let difference = largest(&(&tiled - &whole).unwrap());
    println!("{difference:e} of {}", largest(&whole));
    assert!(difference < 2.0 / 255.0, "differs by {difference}");
}

/// The law of edges that meet: a picture that is shifted around them gives the result shifted as far, by one tile and by
/// many, if the margin is twice as wide as the network reaches. Sides need no multiple of anything.
#[test]
fn a_shifted_picture_gives_the_result_shifted() {
    let (both, x, y) =
        (Seamless { x: true, y: true }, Seamless { x: true, y: false }, Seamless { x: false, y: true });
    for (name, size) in [("numbered_2x", (52, 90)), ("trunk_4x", (30, 41)), ("basic_2x", (90, 100))] {
        let network = network(name);
        let (scale, reach) = (network.scale(), network.reach());
        let picture = picture(size.0, size.1);
        let enlarged = |picture: &Tensor, side: usize, seamless| {
            let tiles = UpscaleTiles::new(side, 2 * reach).unwrap();
            let mut upscale = TiledUpscale::new(&network, picture, tiles, seamless).unwrap();
            while upscale.step(&network).unwrap() {}
            assert_eq!(
                upscale.total(),
                tiles.count(size.0, size.1, network.size_multiple(), seamless),
                "{name}"
            );
            upscale.finish().unwrap()
        };
        for (seamless, rows, columns) in [(both, 18, 32), (x, 0, 32), (y, 18, 0)] {
            let moved = |picture: &Tensor, scale: usize| {
                let picture = picture.roll((scale * rows) as i32, 2).unwrap();
                picture.roll((scale * columns) as i32, 3).unwrap()
            };
            for side in [8 * reach, 1024] {
                let result = enlarged(&picture, side, seamless);
                assert_eq!(result.dims(), [1, 3, scale * size.0, scale * size.1], "{name}");
                let other = enlarged(&moved(&picture, 1), side, seamless);
                let difference = |a: &Tensor| largest(&(a - &other).unwrap()) / largest(&result);
                let found = difference(&moved(&result, scale));
                println!("{name}, tiles of {side}, {seamless:?}: {found:e}");
                assert!(found < 1e-4, "{name}, tiles of {side}, {seamless:?}: differs by {found:e}");
                let plain = enlarged(&picture, side, Seamless::default());
                let without = difference(&moved(&plain, scale));
                assert!(without > 1e-3, "{name}: edges that do not meet make no difference");
            }
        }
    }
}

/// With the usual margin a larger network does not see quite around the edge, and no seam is left to see.
#[test]
fn small_margins_close_the_seam() {
    let network = network("basic_4x");
    let picture = picture(60, 70);
    let both = Seamless { x: true, y: true };
    let enlarged = |margin: usize| {
        let tiles = UpscaleTiles::new(192, margin).unwrap();
        let mut upscale = TiledUpscale::new(&network, &picture, tiles, both).unwrap();
        while upscale.step(&network).unwrap() {}
        upscale.finish().unwrap()
    };
    let difference = largest(&(enlarged(16) - enlarged(48)).unwrap());
    println!("{difference:e}");
    assert!(difference < 2.0 / 255.0, "differs by {difference}");
}

/// Sides that the squares of a network do not divide are continued and cut again.
#[test]
fn any_size_is_enlarged_by_the_scale() {
    for (name, scale) in [("basic_2x", 2), ("basic_1x", 1), ("trunk_4x", 4)] {
        let network = network(name);
        for (height, width) in [(1, 1), (5, 9), (8, 3)] {
            let picture = picture(height, width);
            let result = network.upscale(&picture, UpscaleTiles::default(), &mut |_, _| {}).unwrap();
            assert_eq!(result.dims(), [1, 3, scale * height, scale * width], "{name}");
        }
        let gray = Tensor::zeros((1, 1, 8, 8), DType::F32, &Device::Cpu).unwrap();
        assert!(network.upscale(&gray, UpscaleTiles::default(), &mut |_, _| {}).is_err());
    }
}

#[test]
fn files_that_are_no_such_network_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: PathBuf| {
        let error = RrdbNet::open(&path, &Device::Cpu, DType::F32).unwrap_err().to_string();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(error.contains(&name), "{error}");
        error
    };
    let pickle = folder.path().join("RealESRGAN_x4plus.pth");
    std::fs::write(&pickle, "anything").unwrap();
    assert!(refused(pickle).contains("pickle"));
    assert!(refused(fixtures().join("expected.safetensors")).contains("no ESRGAN network"));
    refused(folder.path().join("none.safetensors"));

    let whole =
        candle_core::safetensors::load(fixtures().join("basic_4x.safetensors"), &Device::Cpu).unwrap();
    let save = |change: &dyn Fn(&mut HashMap<String, Tensor>)| {
        let mut tensors = whole.clone();
        change(&mut tensors);
        let path = folder.path().join("changed.safetensors");
        candle_core::safetensors::save(&tensors, &path).unwrap();
        refused(path)
    };
    assert!(
        save(&|tensors| drop(tensors.remove("body.1.rdb2.conv3.weight")))
            .contains("body.1.rdb2.conv3.weight")
    );
    assert!(save(&|tensors| tensors.retain(|name, _| !name.starts_with("body"))).contains("has no block"));
    let odd = Tensor::zeros((6, 5, 3, 3), DType::F32, &Device::Cpu).unwrap();
    assert!(
        save(&|tensors| drop(tensors.insert("conv_first.weight".into(), odd.clone())))
            .contains("takes 5 channels")
    );
}
