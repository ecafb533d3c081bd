//! A generator for tests: what it does is written in the prompt. Shared with the tests of `sd-http`.
//!
//! `noise`: a picture that no format makes small. `gated`: each step waits for [`Gate::let_through`]; `slow decoding`: each picture
//! does; `slow finish`: finishing does; `slow preview`: making one does.
//! `broken preview`: making one panics. `network`: previews are decoded, in three pieces; `slow network`: each waits for
//! [`TestGenerator::network`]; `broken network`: decoding panics. `panic in begin|step|finish`, `fail in begin|step|finish`,
//! `no memory`: as it says, in the second step where a step is meant. `warn`: a warning in the first step.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use operations_contract::{
    Feature, ModelCapabilities, OperationKind, PreviewMethod, Sampler, Schedule, Upscaler,
};
use sd_engine::{
    ActiveGeneration, GeneratedImages, GenerationTask, GenerationTimings, Generator, GeneratorError, Picture,
    PreviewPicture, StepReport, StepResult,
};

/// Holds gated generations back.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    free: usize,
    waiting: usize,
}

impl Gate {
    pub(crate) fn let_through(&self, steps: usize) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        state.free = state.free.saturating_add(steps);
        changed.notify_all();
    }

    pub(crate) fn open(&self) {
        self.let_through(usize::MAX);
    }

    /// Waits until a generation stands before the gate, in the middle of a step.
    pub(crate) async fn reached(&self) {
        let begun = Instant::now();
        while self.0.0.lock().unwrap().waiting == 0 {
            assert!(begun.elapsed() < Duration::from_secs(10), "no generation came to the gate");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        state.waiting += 1;
        let patience = Duration::from_secs(20);
        let (mut state, timeout) =
            changed.wait_timeout_while(state, patience, |state| state.free == 0).unwrap();
        state.waiting -= 1;
        assert!(!timeout.timed_out(), "nobody opened the gate");
        state.free -= 1;
    }
}

/// What the generator did, as `prompt:what`.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn add(&self, task: &GenerationTask, what: impl std::fmt::Display) {
        self.0.lock().unwrap().push(format!("{}:{what}", task.prompt));
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

#[derive(Clone)]
pub(crate) struct TestGenerator {
    pub(crate) capabilities: ModelCapabilities,
    pub(crate) max_active: usize,
    pub(crate) gate: Gate,
    /// Holds back what decodes previews.
    pub(crate) network: Gate,
    pub(crate) log: Log,
}

impl TestGenerator {
    pub(crate) fn new() -> Self {
        let capabilities = ModelCapabilities {
            aliases: vec!["default".into()],
            operations: vec![OperationKind::ImageGeneration, OperationKind::ImageTransform],
            default_width: 64,
            default_height: 64,
            min_side: 16,
            max_side: 1024,
            samplers: vec![Sampler::Euler, Sampler::Ddim],
            schedules: vec![Schedule::Normal, Schedule::Karras],
            default_steps: 3,
            default_guidance_scale: 4.0,
            max_images: 4,
            previews: vec![PreviewMethod::LatentRgb],
            features: vec![Feature::NegativePrompt, Feature::Hires],
            upscalers: vec![Upscaler::Latent],
            ..ModelCapabilities::text_to_image("test-model", "test")
        };
        let (gate, network) = (Gate::default(), Gate::default());
        Self { capabilities, max_active: 1, gate, network, log: Log::default() }
    }
}

pub(crate) struct TestGeneration {
    task: GenerationTask,
    step: u32,
    decoded: u32,
    gate: Gate,
    network: Gate,
    log: Log,
}

fn misbehave(task: &GenerationTask, place: &str) -> Result<(), GeneratorError> {
    assert!(!task.prompt.contains(&format!("panic in {place}")), "as asked for, in {place}");
    if task.prompt.contains(&format!("fail in {place}")) {
        return Err(GeneratorError::failed(format!("failed in {place}")));
    }
    Ok(())
}

impl Generator for TestGenerator {
    type Active = TestGeneration;

    fn capabilities(&self) -> ModelCapabilities {
        self.capabilities.clone()
    }

    fn max_active(&self) -> usize {
        self.max_active
    }

    fn begin(&mut self, task: GenerationTask) -> Result<TestGeneration, GeneratorError> {
        self.log.add(&task, "begin");
        misbehave(&task, "begin")?;
        let Self { gate, network, log, .. } = self.clone();
        Ok(TestGeneration { task, step: 0, decoded: 0, gate, network, log })
    }
}

impl ActiveGeneration for TestGeneration {
    fn step(&mut self) -> StepResult {
        if self.step == self.task.steps {
            return Ok(None);
        }
        if self.task.prompt.contains("gated") {
            self.gate.pass();
        }
        self.step += 1;
        self.log.add(&self.task, self.step);
        if self.step == 2 {
            misbehave(&self.task, "step")?;
            if self.task.prompt.contains("no memory") {
                return Err(GeneratorError::OutOfMemory("4 GiB wanted".into()));
            }
        }
        let mut report = StepReport::new(self.step, self.task.steps);
        if self.step == 1 && self.task.prompt.contains("warn") {
            report.warnings.push("the step was repeated in f32".into());
        }
        if self.task.preview.is_some_and(|preview| self.step.is_multiple_of(preview.every)) {
            let picture = Picture::filled(self.task.width, self.task.height, [9; 3]);
            if self.task.prompt.contains("network") {
                report.preview = Some(self.decoded(picture));
                return Ok(Some(report));
            }
            let slow = self.task.prompt.contains("slow preview").then(|| self.gate.clone());
            let broken = self.task.prompt.contains("broken preview");
            report.preview = Some(PreviewPicture::later(move || {
                assert!(!broken, "as asked for, in a preview");
                if let Some(gate) = slow {
                    gate.pass();
                }
                Ok(picture)
            }));
        }
        Ok(Some(report))
    }

    fn decode(&mut self) -> Result<bool, GeneratorError> {
        if !self.task.prompt.contains("slow decoding") || self.decoded == self.task.num_images {
            return Ok(false);
        }
        self.gate.pass();
        self.decoded += 1;
        self.log.add(&self.task, format!("picture {}", self.decoded));
        Ok(true)
    }

    fn finish(self) -> Result<GeneratedImages, GeneratorError> {
        self.log.add(&self.task, "finish");
        if self.task.prompt.contains("slow finish") {
            self.gate.pass();
        }
        misbehave(&self.task, "finish")?;
        let image = |k| {
            let shade = self.task.seed.wrapping_add(k).to_le_bytes()[0];
            if self.task.prompt.contains("noise") {
                return noise(self.task.width, self.task.height);
            }
            Picture::filled(self.task.width, self.task.height, [shade; 3])
        };
        let mut images = GeneratedImages::new((0..u64::from(self.task.num_images)).map(image).collect());
        images.timings =
            GenerationTimings { text_encode_ms: 1, denoise_ms: 2, decode_ms: 3, image_encode_ms: 4 };
        Ok(images)
    }
}

impl TestGeneration {
    /// A preview that a network decodes.
    fn decoded(&self, picture: Picture) -> PreviewPicture {
        let (task, step, log) = (self.task.clone(), self.step, self.log.clone());
        let broken = task.prompt.contains("broken network");
        let slow = task.prompt.contains("slow network").then(|| self.network.clone());
        PreviewPicture::decoded(move |go_on| {
            log.add(&task, format!("decodes {step}"));
            assert!(!broken, "as asked for, in a network");
            for _ in 0..3 {
                if let Some(gate) = &slow {
                    gate.pass();
                }
                if !go_on() {
                    log.add(&task, format!("gives up {step}"));
                    return Ok(None);
                }
            }
            Ok(Some(picture))
        })
    }
}

/// A picture that no file format makes small.
fn noise(width: u32, height: u32) -> Picture {
    let next = |state: &u32| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let bytes = std::iter::successors(Some(1), next).map(|state| state.to_be_bytes()[0]);
    let count = width as usize * height as usize * 3;
    Picture::from_rgb(width, height, bytes.take(count).collect()).unwrap()
}
