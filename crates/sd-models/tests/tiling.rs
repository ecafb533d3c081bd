//! Tiled against whole: how far the pictures of `models/demo` move when its VAE works tile by tile.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use candle_core::{DType, Device, Tensor};
use sd_models::vae::{AutoencoderKl, SampleSize, Tiles};
use sd_models::{ModelFiles, Weights};

fn demo_vae() -> AutoencoderKl {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo");
    let files = ModelFiles::folder(folder).unwrap();
    let weights = Weights::open(&files, "vae", "diffusion_pytorch_model", &Device::Cpu, DType::F32).unwrap();
    AutoencoderKl::load(&weights, files.json("vae/config.json").unwrap(), "vae/config.json").unwrap()
}

/// A disc on a ground that changes slowly, in -1..=1: what the model knows, larger than it ever saw.
fn picture(height: usize, width: usize) -> Tensor {
    let pixel = |channel: usize, y: usize, x: usize| {
        let (dy, dx) = (y as f32 - height as f32 / 2.0, x as f32 - width as f32 / 2.0);
        match dy.hypot(dx) < height as f32 / 4.0 {
            true => [0.8, -0.7, -0.6][channel],
            false => [-0.6, 0.4, -0.5][channel] + 0.3 * x as f32 / width as f32,
        }
    };
    let values: Vec<f32> =
        (0..3 * height * width).map(|i| pixel(i / (height * width), i / width % height, i % width)).collect();
    Tensor::from_vec(values, (1, 3, height, width), &Device::Cpu).unwrap()
}

/// The mean and the largest difference.
fn difference(a: &Tensor, b: &Tensor) -> (f32, f32) {
    let difference = (a - b).unwrap().abs().unwrap();
    let scalar = |tensor: Tensor| tensor.to_scalar::<f32>().unwrap();
    (scalar(difference.mean_all().unwrap()), scalar(difference.max_all().unwrap()))
}

#[test]
fn tiles_give_nearly_the_whole_picture() {
    let vae = demo_vae();
    let tiles = Tiles::of(vae.config());
    let side = tiles.pixels();
    assert_eq!(vae.config().sample_size, Some(SampleSize::Side(side)));
    let picture = picture(5 * side / 2, 7 * side / 4);
    let latents = vae.encode(&picture).unwrap().mean;
    let whole = vae.decode(&latents).unwrap();
    let tiled = vae.decode_tiled(&latents, tiles).unwrap();
    assert_eq!(tiled.dims(), picture.dims());
    let (mean, largest) = difference(&whole, &tiled);
    println!("decoded: mean {mean}, largest {largest} of 2");
    assert!(mean > 0.0, "tiles have norms of their own");
    assert!(mean < 0.08 && largest < 0.8, "mean {mean}, largest {largest}");

    let (mean, largest) = difference(&latents, &vae.encode_tiled(&picture, tiles).unwrap().mean);
    println!("encoded: mean {mean}, largest {largest}");
    assert!(mean < 0.1, "mean {mean}, largest {largest}");
}

/// What fits into one tile is not cut at all.
#[test]
fn one_tile_is_the_whole_picture_to_the_last_bit() {
    let vae = demo_vae();
    let side = Tiles::of(vae.config()).pixels();
    let latents = vae.encode(&picture(side, 5 * side / 8)).unwrap().mean;
    let values = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let tiled = vae.decode_tiled(&latents, Tiles::of(vae.config())).unwrap();
    assert!(values(tiled) == values(vae.decode(&latents).unwrap()));
}
