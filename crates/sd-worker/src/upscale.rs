//! `sd-worker upscale`: a picture made larger by a network of its own.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use operations_contract::Output;
use sd_engine::{PARAMETERS_KEY, Picture, encode_image, read_picture, read_texts};
use sd_inference::{DType, UpscaleNetwork, UpscaleOptions, UpscaleTiles};
use serde_json::json;

use crate::args::UpscaleArgs;
use crate::exit::{Failure, say};
use crate::model;
use crate::output::OutputFiles;

pub(crate) fn run(args: &UpscaleArgs) -> Result<(), Failure> {
    let start = Instant::now();
    let refused = |reason: String| Failure::refused(format!("file {}: {reason}", args.file.display()));
    let bytes = std::fs::read(&args.file).map_err(|error| refused(error.to_string()))?;
    let picture = read_picture(&bytes).map_err(refused)?;
    let (width, height) = (picture.width(), picture.height());
    let Some(tiles) = UpscaleTiles::new(args.tile.into(), args.margin.into()) else {
        let message =
            format!("margin: {} is more than a quarter of the tile's {} pixels", args.margin, args.tile);
        return Err(Failure::refused(message));
    };
    let output = OutputFiles::reserve(&args.output)?;
    let picture = image::RgbImage::from_raw(width, height, picture.into_rgb())
        .ok_or_else(|| Failure::failed("the picture's bytes do not fit its size"))?;

    let network = UpscaleNetwork::open(&args.upscaler, &model::device(args.device)?, DType::F32)?;
    let options = UpscaleOptions { scale: args.scale, tiles };
    let bar = progress_bar(args.json);
    let larger = network.upscale(&picture, &options, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();

    let (large_width, large_height) = larger.dimensions();
    let texts = match args.no_metadata {
        true => Vec::new(),
        false => continued(&bytes, f64::from(large_width) / f64::from(width), args),
    };
    let format = Output { format: output.format(), quality: args.quality, metadata: !args.no_metadata };
    let larger = Picture::from_rgb(large_width, large_height, larger.into_raw()).map_err(Failure::failed)?;
    let file = encode_image(&larger, &format, &texts).map_err(Failure::failed)?;
    let paths = output.write(&[&file])?;
    let elapsed = start.elapsed();
    for path in paths {
        match args.json {
            true => say(
                json!({"file": path, "width": large_width, "height": large_height, "format": format.format,
                               "scale": network.scale(), "elapsed_ms": elapsed.as_millis() as u64}),
            )?,
            false => say(format!(
                "{}: {large_width}x{large_height} from {width}x{height}, {:.2} s",
                path.display(),
                elapsed.as_secs_f64()
            ))?,
        }
    }
    Ok(())
}

/// What the picture's file told about its making, and what was done with it since, in the words of A1111.
fn continued(bytes: &[u8], scale: f64, args: &UpscaleArgs) -> Vec<(&'static str, String)> {
    let told = read_texts(bytes).ok().and_then(|texts| texts.parameters);
    let name =
        args.upscaler.file_stem().unwrap_or_default().to_string_lossy().replace([',', '"', ':', '\n'], " ");
    let add =
        |text: String| format!("{text}, Postprocess upscale by: {scale:.4}, Postprocess upscaler: {name}");
    told.map(|text| (PARAMETERS_KEY, add(text))).into_iter().collect()
}

fn progress_bar(quiet: bool) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if quiet {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{bar:30} tile {pos}/{len}  {eta} left") {
        bar.set_style(style);
    }
    bar
}
