//! `sd-worker bench`: how long the parts of a generation take here.

use std::time::{Duration, Instant};

use sd_inference::{GenerationRequest, ModelSource, Pipeline};
use serde::Serialize;

use crate::args::BenchArgs;
use crate::exit::Failure;
use crate::model;

const PROMPT: &str = "a photograph of a lighthouse on a cliff at dusk, waves below, highly detailed";

/// What was measured, and on what. Times are medians in milliseconds.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    device: String,
    dtype: &'static str,
    threads: usize,
    kernels: String,
    size: usize,
    batch: usize,
    iterations: usize,
    /// Reading (or making up) the weights and packing them.
    load_ms: f64,
    /// Encoding prompt and negative prompt.
    text_encode_ms: f64,
    /// One denoising step with guidance: two UNet evaluations for each picture.
    step_ms: f64,
    /// Latents to pixels, all pictures of the batch.
    decode_ms: f64,
    /// The most memory that the process ever held; null where the system does not tell.
    peak_rss_mb: Option<f64>,
}

pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    let (source, name) = match args.random {
        Some(random) => (ModelSource::Random(random), format!("random {}", random.name())),
        None => (model::source(&args.model.model)?, args.model.model.clone()),
    };
    let options = model::options(&args.model)?;
    let start = Instant::now();
    let pipeline = Pipeline::load(&source, &options)?;
    let load = start.elapsed();

    let report = measure(&pipeline, args, name, load)?;
    if args.json {
        println!("{}", serde_json::to_string(&report).map_err(Failure::failed)?);
    } else {
        print_table(&report);
    }
    Ok(())
}

fn measure(pipeline: &Pipeline, args: &BenchArgs, name: String, load: Duration) -> Result<Report, Failure> {
    let iterations = usize::from(args.iterations);
    let size = args.size.unwrap_or(pipeline.info().default_width);
    let request = GenerationRequest {
        negative_prompt: Some("blurry, low quality".into()),
        width: Some(size),
        height: Some(size),
        steps: Some(iterations + 1),
        guidance_scale: Some(7.5),
        num_images: args.batch.into(),
        ..GenerationRequest::new(PROMPT)
    };
    let mut encodes = Vec::new();
    for _ in 0..iterations {
        encodes.push(pipeline.begin(&request)?.timings().text_encode);
    }
    let mut generation = pipeline.begin(&request)?;
    encodes.push(generation.timings().text_encode);

    let mut steps = Vec::new();
    while let Some(step) = generation.step()? {
        steps.push(step.elapsed);
    }
    let mut decodes = Vec::new();
    for _ in 0..=iterations {
        let start = Instant::now();
        generation.decode()?;
        decodes.push(start.elapsed());
    }
    let info = pipeline.info();
    Ok(Report {
        model: name,
        device: info.device.clone(),
        dtype: info.dtype,
        threads: rayon::current_num_threads(),
        kernels: sd_inference::cpu_kernels().to_string(),
        size,
        batch: args.batch.into(),
        iterations,
        load_ms: millis(load),
        text_encode_ms: median(&encodes[1..]),
        step_ms: median(&steps[1..]),
        decode_ms: median(&decodes[1..]),
        peak_rss_mb: peak_rss_mb(),
    })
}

fn print_table(report: &Report) {
    let Report { model, device, dtype, threads, kernels, size, batch, iterations, .. } = report;
    println!("{model} at {size}x{size}, batch {batch}, {dtype} on {device} ({kernels}, {threads} threads)");
    println!("medians of {iterations}:");
    for (part, value) in [
        ("load", report.load_ms),
        ("text encode", report.text_encode_ms),
        ("step", report.step_ms),
        ("decode", report.decode_ms),
    ] {
        println!("  {part:<12} {value:>10.1} ms");
    }
    if let Some(peak) = report.peak_rss_mb {
        println!("  {:<12} {peak:>10.0} MB", "peak memory");
    }
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn median(samples: &[Duration]) -> f64 {
    let mut samples = samples.to_vec();
    samples.sort_unstable();
    match samples.len() {
        0 => 0.0,
        n if n % 2 == 1 => millis(samples[n / 2]),
        n => (millis(samples[n / 2 - 1]) + millis(samples[n / 2])) / 2.0,
    }
}

/// `VmHWM` of this process.
fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some((kilobytes / 1.024).round() / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let ms = |values: &[u64]| values.iter().map(|v| Duration::from_millis(*v)).collect::<Vec<_>>();
        assert_eq!(median(&ms(&[5, 1, 3])), 3.0);
        assert_eq!(median(&ms(&[4, 1, 3, 100])), 3.5);
    }
}
