//! `sd-worker bench`: how long the parts of a generation take here, and how much of the processor that uses.

mod previews;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use operations_contract::{ImageFormat, Output};
use sd_engine::{Picture, encode_image};
use sd_inference::schedulers::Sampler;
use sd_inference::{Generation, GenerationRequest, LoadOptions, ModelSource, Pipeline, PreviewMethod};
use serde::Serialize;

use crate::args::{BenchArgs, BenchPart};
use crate::exit::{Failure, say};
use crate::{latency, model};
use previews::Beside;

const PROMPT: &str = "a photograph of a lighthouse on a cliff at dusk, waves below, highly detailed";
const GIGA: f64 = 1e9;

/// What was measured, and on what. Times are in milliseconds, those of parts medians and null where not asked for.
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
    /// Steps of `picture`.
    picture_steps: usize,
    /// Reading (or making up) the weights and packing them.
    load_ms: f64,
    /// Encoding prompt and negative prompt.
    text_encode_ms: Option<f64>,
    /// One denoising step with guidance: two UNet evaluations for each picture.
    step_ms: Option<f64>,
    /// Latents to pixels, all pictures of the batch.
    decode_ms: Option<f64>,
    /// What the next step waits for when a job sends a preview by the linear map.
    preview_ms: Option<f64>,
    /// What is done of it beside the next step.
    preview_beside_ms: Option<f64>,
    /// What a preview after each step adds to the steps; null where either was not measured.
    preview_share_of_step: Option<f64>,
    /// Steps with previews beside those without, by method; with the part `preview`.
    previews: Vec<Beside>,
    /// From prompts to pixels.
    picture_ms: Option<f64>,
    /// More of each, by the name of its median.
    parts: BTreeMap<&'static str, Part>,
    /// What these threads' f32 units can do, measured; null where the work is not on the CPU.
    peak_gflop_per_s: Option<f64>,
    /// The most memory that the process ever held; null where the system does not tell.
    peak_rss_mb: Option<f64>,
}

/// How often, how much and how fast. The work is what the shapes ask for ([`sd_inference::work`]), so that the rate of a
/// kernel that saves some of it is comparable, and may exceed the peak.
#[derive(Debug, Serialize)]
struct Part {
    samples_ms: Vec<f64>,
    gflop: Option<f64>,
    gflop_per_s: Option<f64>,
    share_of_peak: Option<f64>,
}

/// The name of a part's median, and of its entry among the parts.
fn key(part: BenchPart) -> &'static str {
    match part {
        BenchPart::Text => "text_encode",
        BenchPart::Step => "step",
        BenchPart::Decode => "decode",
        BenchPart::Preview => "preview",
        BenchPart::Picture => "picture",
    }
}

pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    let (source, name) = match args.random {
        Some(random) => (ModelSource::Random(random), format!("random {}", random.name())),
        None => {
            model::only_one(&args.model)?;
            (model::source(args.model.name(), &args.model.place)?, args.model.name().to_owned())
        }
    };
    let options = LoadOptions { width: args.size, height: args.size, ..model::options(&args.model)? };
    let start = Instant::now();
    let pipeline = Pipeline::load(&source, &options)?;
    let load = start.elapsed();

    if let Some(requests) = args.latency {
        let size = args.size.unwrap_or(pipeline.info().default_width);
        let registry = latency::registry(args.data_dir.as_deref())?;
        return latency::run(pipeline, &name, size as u32, requests.into(), registry);
    }
    let report = measure(&pipeline, args, name, load)?;
    if args.json {
        say(serde_json::to_string(&report).map_err(Failure::failed)?)
    } else {
        say(table(&report))
    }
}

fn measure(pipeline: &Pipeline, args: &BenchArgs, name: String, load: Duration) -> Result<Report, Failure> {
    let info = pipeline.info();
    let size = args.size.unwrap_or(info.default_width);
    let bench = Bench {
        pipeline,
        iterations: args.iterations.into(),
        warmup: args.warmup.into(),
        size,
        batch: args.batch.into(),
    };
    let on_cpu = pipeline.device().is_cpu();
    let peak = on_cpu.then(|| sd_inference::measure_peak() / GIGA);
    let mut parts = BTreeMap::new();
    let (mut preview_beside_ms, mut previews) = (None, Vec::new());
    for part in &args.parts {
        let samples = match part {
            BenchPart::Text => bench.text()?,
            BenchPart::Step => bench.steps()?,
            BenchPart::Decode => bench.decode()?,
            BenchPart::Preview => {
                let (samples, beside) = bench.preview()?;
                preview_beside_ms = Some(median(&beside.iter().copied().map(millis).collect::<Vec<_>>()));
                previews = bench.beside()?;
                samples
            }
            BenchPart::Picture => bench.picture(args.steps.into())?,
        };
        parts.insert(key(*part), Part::new(&samples, peak));
    }
    let median_of = |part| parts.get(key(part)).map(|part: &Part| median(&part.samples_ms));
    Ok(Report {
        model: name,
        device: info.device.clone(),
        dtype: info.dtype,
        threads: rayon::current_num_threads(),
        kernels: sd_inference::cpu_kernels().to_string(),
        size,
        batch: args.batch.into(),
        iterations: args.iterations.into(),
        picture_steps: args.steps.into(),
        load_ms: millis(load),
        text_encode_ms: median_of(BenchPart::Text),
        step_ms: median_of(BenchPart::Step),
        decode_ms: median_of(BenchPart::Decode),
        preview_ms: median_of(BenchPart::Preview),
        preview_beside_ms,
        previews,
        preview_share_of_step: median_of(BenchPart::Preview)
            .zip(median_of(BenchPart::Step))
            .map(|(preview, step)| preview / step),
        picture_ms: median_of(BenchPart::Picture),
        parts,
        peak_gflop_per_s: peak,
        peak_rss_mb: peak_rss_mb(),
    })
}

/// One run of a part: how long it took and how many operations it was.
struct Sample {
    elapsed: Duration,
    work: u64,
}

/// Measures parts; each first runs a few times without being counted.
struct Bench<'a> {
    pipeline: &'a Pipeline,
    iterations: usize,
    warmup: usize,
    size: usize,
    batch: usize,
}

impl Bench<'_> {
    fn begin(&self, steps: usize) -> Result<Generation, Failure> {
        // Encoding the text is part of what is measured.
        self.pipeline.clear_prompt_cache();
        Ok(self.pipeline.begin(&GenerationRequest {
            negative_prompt: Some("blurry, low quality".into()),
            width: Some(self.size),
            height: Some(self.size),
            steps: Some(steps),
            guidance_scale: Some(7.5),
            num_images: self.batch,
            // PNDM, which SD 1.5 names, takes one step more than it is asked for: a picture would not be so many steps.
            sampler: match self.pipeline.info().default_sampler {
                Sampler::Pndm => Some(Sampler::Ddim),
                _ => None,
            },
            ..GenerationRequest::new(PROMPT)
        })?)
    }

    fn text(&self) -> Result<Vec<Sample>, Failure> {
        let encode = || Ok(self.begin(1)?.timings().text_encode);
        self.warm_up(|| encode().map(drop))?;
        self.repeat(encode)
    }

    fn steps(&self) -> Result<Vec<Sample>, Failure> {
        let mut generation = self.begin(self.iterations + self.warmup)?;
        self.warm_up(|| Ok(generation.step().map(drop)?))?;
        self.repeat(|| Ok(generation.step()?.map_or(Duration::ZERO, |step| step.elapsed)))
    }

    fn decode(&self) -> Result<Vec<Sample>, Failure> {
        let generation = self.begin(1)?;
        let decode = || Ok(generation.decode().map(drop)?);
        self.warm_up(decode)?;
        self.repeat(|| timed(decode))
    }

    /// What the next step waits for, and how long the rest takes.
    fn preview(&self) -> Result<(Vec<Sample>, Vec<Duration>), Failure> {
        let mut generation = self.begin(1)?;
        generation.step()?;
        let output = Output { format: ImageFormat::Jpeg, quality: 80, ..Output::default() };
        let mut beside = Vec::new();
        let mut preview = || {
            let start = Instant::now();
            let Some(pending) = generation.pending_preview(PreviewMethod::LatentRgb)? else {
                return Err(Failure::refused("part preview: nobody can read this model's latents"));
            };
            let waited = start.elapsed();
            let image = pending.picture()?;
            let (width, height) = image.dimensions();
            let picture = Picture::from_rgb(width, height, image.into_raw()).map_err(Failure::failed)?;
            encode_image(&picture, &output, &[]).map_err(Failure::failed)?;
            beside.push(start.elapsed() - waited);
            Ok(waited)
        };
        self.warm_up(|| preview().map(drop))?;
        let samples = self.repeat(preview)?;
        Ok((samples, beside.split_off(self.warmup)))
    }

    /// Whole pictures of a warm pipeline. What runs before is a picture of a single step, because it takes long.
    fn picture(&self, steps: usize) -> Result<Vec<Sample>, Failure> {
        let draw = |steps| {
            let mut generation = self.begin(steps)?;
            while generation.step()?.is_some() {}
            generation.finish()?;
            Ok(())
        };
        self.warm_up(|| draw(1))?;
        self.repeat(|| timed(|| draw(steps)))
    }

    fn warm_up(&self, run: impl FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
        std::iter::repeat_with(run).take(self.warmup).collect()
    }

    /// Calls `run`, which says how long what counts of it took.
    fn repeat(&self, mut run: impl FnMut() -> Result<Duration, Failure>) -> Result<Vec<Sample>, Failure> {
        let sample = |_| {
            let before = sd_inference::work();
            let elapsed = run()?;
            Ok(Sample { elapsed, work: sd_inference::work() - before })
        };
        (0..self.iterations).map(sample).collect()
    }
}

fn timed(run: impl FnOnce() -> Result<(), Failure>) -> Result<Duration, Failure> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed())
}

impl Part {
    /// `peak` in GFLOP/s where the work is done on the CPU: elsewhere it is not counted.
    fn new(samples: &[Sample], peak: Option<f64>) -> Self {
        let samples_ms: Vec<f64> = samples.iter().map(|sample| millis(sample.elapsed)).collect();
        let gflop = peak.and(samples.last()).map(|sample| sample.work as f64 / GIGA);
        let gflop_per_s = gflop.map(|gflop| gflop / (median(&samples_ms) / 1e3));
        let share_of_peak = gflop_per_s.zip(peak).map(|(rate, peak)| rate / peak);
        Self { samples_ms, gflop, gflop_per_s, share_of_peak }
    }
}

fn table(report: &Report) -> String {
    let Report { model, device, dtype, threads, kernels, size, batch, iterations, .. } = report;
    let mut lines = vec![
        format!(
            "{model} at {size}x{size}, batch {batch}, {dtype} on {device} ({kernels}, {threads} threads)"
        ),
        format!("medians of {iterations}, in brackets the least and the most:"),
        format!("  {:<12} {:>10.1} ms", "load", report.load_ms),
    ];
    const PARTS: [BenchPart; 5] =
        [BenchPart::Text, BenchPart::Step, BenchPart::Decode, BenchPart::Preview, BenchPart::Picture];
    for part in &PARTS {
        let Some(measured) = report.parts.get(key(*part)) else { continue };
        let name = match part {
            BenchPart::Text => "text encode".to_owned(),
            BenchPart::Picture => format!("{} steps", report.picture_steps),
            _ => key(*part).to_owned(),
        };
        let line = match part {
            BenchPart::Preview => preview_line(measured, report),
            _ => line(measured),
        };
        lines.push(format!("  {name:<12} {line}"));
        if *part == BenchPart::Preview {
            let beside = |beside: &Beside| format!("  {:<12} {}", beside.method(), beside.line());
            lines.extend(report.previews.iter().map(beside));
        }
    }
    if let Some(peak) = report.peak_gflop_per_s {
        lines.push(format!("  {:<12} {peak:>10.1} GFLOP/s of f32 in registers", "peak"));
    }
    if let Some(peak) = report.peak_rss_mb {
        lines.push(format!("  {:<12} {peak:>10.0} MB", "peak memory"));
    }
    lines.join("\n")
}

fn line(part: &Part) -> String {
    let samples = &part.samples_ms;
    let [least, most] = ends(samples);
    let mut line = format!("{:>10.1} ms [{least:.1} .. {most:.1}]", median(samples));
    if let (Some(gflop), Some(rate), Some(share)) = (part.gflop, part.gflop_per_s, part.share_of_peak) {
        line.push_str(&format!("  {gflop:.1} GFLOP, {rate:.1} GFLOP/s, {:.0} % of the peak", 100.0 * share));
    }
    line
}

/// So little that it is told in microseconds; it is no work of the kernels.
fn preview_line(part: &Part, report: &Report) -> String {
    let [least, most] = ends(&part.samples_ms).map(|ms| 1e3 * ms);
    let mut line = format!("{:>10.0} us [{least:.0} .. {most:.0}]", 1e3 * median(&part.samples_ms));
    if let Some(share) = report.preview_share_of_step {
        line.push_str(&format!("  {:.2} % of a step", 100.0 * share));
    }
    if let Some(beside) = report.preview_beside_ms {
        line.push_str(&format!(", {:.0} us more beside the next one", 1e3 * beside));
    }
    line
}

/// The least and the most.
fn ends(samples: &[f64]) -> [f64; 2] {
    [samples.iter().copied().fold(f64::INFINITY, f64::min), samples.iter().copied().fold(0.0, f64::max)]
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn median(samples: &[f64]) -> f64 {
    let mut samples = samples.to_vec();
    samples.sort_unstable_by(f64::total_cmp);
    match samples.len() {
        0 => 0.0,
        n if n % 2 == 1 => samples[n / 2],
        n => (samples[n / 2 - 1] + samples[n / 2]) / 2.0,
    }
}

/// `VmHWM` of this process.
fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes * 1.024 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[5.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 100.0]), 3.5);
    }

    #[test]
    fn rates_follow_from_work_and_median() {
        let sample = |ms| Sample { elapsed: Duration::from_millis(ms), work: 3_000_000_000 };
        let samples = [sample(400), sample(600), sample(500)];
        let part = Part::new(&samples, Some(60.0));
        assert_eq!(part.samples_ms, [400.0, 600.0, 500.0]);
        assert_eq!((part.gflop, part.gflop_per_s, part.share_of_peak), (Some(3.0), Some(6.0), Some(0.1)));
        assert_eq!(line(&part), "     500.0 ms [400.0 .. 600.0]  3.0 GFLOP, 6.0 GFLOP/s, 10 % of the peak");

        let elsewhere = Part::new(&samples, None);
        assert!(
            elsewhere.gflop.is_none() && elsewhere.share_of_peak.is_none(),
            "a GPU's work is not counted"
        );
    }
}
