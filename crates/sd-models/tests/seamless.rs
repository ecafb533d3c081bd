//! The law of models whose edges meet: a picture that is shifted around its edges gives the result shifted as far.

#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor};
use sd_models::nn::Seamless;
use sd_models::unet::{AddedCondition, Unet2DConditionModel, UnetInputs};
use sd_models::vae::{AutoencoderKl, Canvas, Tiles};
use sd_models::{ModelFiles, Weights};

const BOTH: Seamless = Seamless { x: true, y: true };
const X: Seamless = Seamless { x: true, y: false };
const Y: Seamless = Seamless { x: false, y: true };

fn files(family: &str) -> ModelFiles {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    ModelFiles::folder(format!("{root}/{family}")).unwrap()
}

fn weights(files: &ModelFiles, part: &str) -> Weights {
    Weights::open(files, part, "diffusion_pytorch_model", &Device::Cpu, DType::F32).unwrap()
}

fn vae(files: &ModelFiles) -> AutoencoderKl {
    AutoencoderKl::load(&weights(files, "vae"), files.json("vae/config.json").unwrap(), "vae").unwrap()
}

/// Numbers without a pattern, in -1..=1.
fn noise(shape: (usize, usize, usize, usize)) -> Tensor {
    let (a, b, c, d) = shape;
    let value =
        |i: usize| ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    Tensor::from_vec((0..a * b * c * d).map(value).collect::<Vec<f32>>(), shape, &Device::Cpu).unwrap()
}

/// The picture, moved around its edges.
fn shifted(tensor: &Tensor, rows: usize, columns: usize) -> Tensor {
    tensor.roll(rows as i32, 2).unwrap().roll(columns as i32, 3).unwrap()
}

fn difference(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

/// Holds `model` to the law for a shift of so many rows and columns, `scale` times as many in its output; and to its
/// converse for edges that do not meet.
fn check(
    name: &str,
    input: &Tensor,
    (rows, columns): (usize, usize),
    scale: (usize, usize),
    model: impl Fn(&Tensor, Seamless) -> Tensor,
) {
    let out = |count: usize| count * scale.0 / scale.1;
    for (seamless, rows, columns) in [(BOTH, rows, columns), (X, 0, columns), (Y, rows, 0)] {
        let moved = |seamless| {
            let expected = shifted(&model(input, seamless), out(rows), out(columns));
            difference(&model(&shifted(input, rows, columns), seamless), &expected)
        };
        let largest = model(input, seamless).abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        let (held, broken) = (moved(seamless) / largest, moved(Seamless::default()) / largest);
        assert!(
            held < 1e-4,
            "{name}, {seamless:?}: the shifted picture differs by {held} of its largest value"
        );
        assert!(broken > 1e-2, "{name}: without seamless edges the law should not hold, yet {broken}");
    }
}

#[test]
fn the_unet_does_not_know_where_a_picture_begins() {
    for family in ["sd15", "sd21", "sdxl"] {
        let files = files(&format!("fixtures/{family}/model"));
        let config: sd_models::unet::UnetConfig = files.json("unet/config.json").unwrap();
        let (channels, width) = (config.in_channels, config.text_width());
        let pooled = config.projection_class_embeddings_input_dim.zip(config.addition_time_embed_dim);
        let added = pooled.map(|(width, time)| AddedCondition {
            text_embeds: noise((1, 1, 1, width - 6 * time)).reshape((1, width - 6 * time)).unwrap(),
            time_ids: vec![vec![64.0, 64.0, 0.0, 0.0, 64.0, 64.0]],
        });
        let unet = Unet2DConditionModel::load(&weights(&files, "unet"), config, "unet").unwrap();
        let text = noise((1, 1, 7, width)).squeeze(0).unwrap();
        check(family, &noise((1, channels, 8, 16)), (4, 8), (1, 1), |input, seamless| {
            let inputs = UnetInputs { added: added.as_ref(), seamless, ..UnetInputs::default() };
            unet.forward_with(input, &[500.0], &text, inputs).unwrap()
        });
    }
}

#[test]
fn the_vae_does_not_know_where_a_picture_begins() {
    for family in ["fixtures/sd15/model", "models/demo"] {
        let vae = vae(&files(family));
        let (scale, channels) = (vae.config().scale_factor(), vae.config().latent_channels);
        let canvas = |seamless| Canvas { tiles: None, seamless };
        check(family, &noise((1, channels, 6, 8)), (1, 3), (scale, 1), |latents, seamless| {
            vae.decode_with(latents, canvas(seamless)).unwrap()
        });
        let pixels = noise((1, 3, 6 * scale, 8 * scale));
        check(family, &pixels, (scale, 3 * scale), (1, scale), |pixels, seamless| {
            vae.encode_with(pixels, canvas(seamless)).unwrap().mean
        });
    }
}

/// Tiles know nothing of the other side, so it is shown to them: the seam of a picture in tiles is as small as that of a
/// picture decoded at once.
#[test]
fn tiles_meet_as_well() {
    let vae = vae(&files("models/demo"));
    let tiles = Tiles::of(vae.config());
    // Waves that meet at the edges, with flanks as steep as those of shapes.
    let (height, width) = (5 * tiles.pixels() / 4, 3 * tiles.pixels() / 2);
    let waves = |i: usize| {
        let (channel, y, x) = (i / (height * width), i / width % height, i % width);
        let turns = |at: usize, side: usize| at as f32 / side as f32 * std::f32::consts::TAU;
        let wave = (3.0 * turns(x, width) + 1.0).sin() * (2.0 * turns(y, height) + 2.0).sin();
        (6.0 * wave).tanh() * [0.7, -0.6, 0.4][channel]
    };
    let picture: Vec<f32> = (0..3 * height * width).map(waves).collect();
    let picture = Tensor::from_vec(picture, (1, 3, height, width), &Device::Cpu).unwrap();
    let latents = vae.encode_with(&picture, Canvas { tiles: None, seamless: BOTH }).unwrap().mean;
    let seam = |picture: &Tensor| {
        let width = picture.dim(3).unwrap();
        let edges = difference(&picture.narrow(3, 0, 1).unwrap(), &picture.narrow(3, width - 1, 1).unwrap());
        let inside =
            difference(&picture.narrow(3, 1, width - 1).unwrap(), &picture.narrow(3, 0, width - 1).unwrap());
        edges / inside
    };
    let tiles = Some(tiles);
    let decoded = |seamless| vae.decode_with(&latents, Canvas { tiles, seamless }).unwrap();
    let (met, cut) = (seam(&decoded(BOTH)), seam(&decoded(Seamless::default())));
    assert!(met <= 1.0, "the seam is {met} times the largest step inside");
    assert!(cut > met, "without seamless edges it is {cut}");
    let encoded = vae.encode_with(&decoded(BOTH), Canvas { tiles, seamless: BOTH }).unwrap().mean;
    assert_eq!(encoded.dims(), latents.dims());
}
