//! Steps with and without previews, in turn.

use std::panic::resume_unwind;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use operations_contract::{ImageFormat, Output};
use sd_engine::{Picture, encode_image};
use sd_inference::{Background, Generation, PendingPreview, PreviewMethod};
use serde::Serialize;

use super::{Bench, median, millis};
use crate::exit::Failure;

/// What previews of one method after every step cost the steps. Each plain step has its neighbour with previews; times in
/// milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct Beside {
    method: &'static str,
    /// Steps while nothing is shown.
    plain_ms: Vec<f64>,
    /// Steps while previews are made, with what they wait for before they begin.
    with_ms: Vec<f64>,
    /// The median of the ratios of neighbours.
    ratio: f64,
    /// What a preview takes of one core when nothing else runs.
    preview_ms: f64,
    /// How many are ready for a step, at most one.
    previews_per_step: f64,
}

/// Methods that are measured, and their names on the wire.
const METHODS: [(PreviewMethod, &str); 2] =
    [(PreviewMethod::LatentRgb, "latent_rgb"), (PreviewMethod::Taesd, "taesd")];

impl Bench<'_> {
    /// For each method that the model has.
    pub(super) fn beside(&self) -> Result<Vec<Beside>, Failure> {
        let mut generation = self.begin(1 + self.warmup + METHODS.len() * 2 * self.iterations)?;
        step(&mut generation)?;
        self.warm_up(|| step(&mut generation))?;
        let mut measured = Vec::new();
        for (method, name) in METHODS {
            if let Some(first) = generation.pending_preview(method)? {
                measured.push(self.method(&mut generation, first, method, name)?);
            }
        }
        Ok(measured)
    }

    fn method(
        &self,
        generation: &mut Generation,
        first: PendingPreview,
        method: PreviewMethod,
        name: &'static str,
    ) -> Result<Beside, Failure> {
        let maker = Maker::new(rayon::current_num_threads());
        let beside = |generation: &mut Generation| {
            maker.show(first);
            maker.settle();
            let preview = maker.state().took;
            let (mut plain_ms, mut with_ms) = (Vec::new(), Vec::new());
            let before = maker.state().total;
            for round in 0..self.iterations {
                // Whatever changes in the course of time meets both alike.
                for with in [round % 2 == 1, round % 2 == 0] {
                    let start = Instant::now();
                    if with {
                        maker.open(true);
                        generation.pending_preview(method)?.into_iter().for_each(|newest| maker.show(newest));
                    }
                    step(generation)?;
                    let taken = millis(start.elapsed());
                    maker.open(false);
                    if with { with_ms.push(taken) } else { plain_ms.push(taken) }
                }
            }
            let total = maker.state().total - before;
            let ratios: Vec<f64> = with_ms.iter().zip(&plain_ms).map(|(with, plain)| with / plain).collect();
            let ready = total.as_secs_f64() / preview.as_secs_f64().max(1e-9) / self.iterations as f64;
            Ok(Beside {
                method: name,
                ratio: median(&ratios),
                plain_ms,
                with_ms,
                preview_ms: millis(preview),
                previews_per_step: ready.min(1.0),
            })
        };
        thread::scope(|scope| {
            let thread = scope.spawn(|| maker.run());
            let measured = beside(generation);
            maker.stop();
            match thread.join() {
                Ok(made) => made.and(measured),
                Err(panic) => resume_unwind(panic),
            }
        })
    }
}

fn step(generation: &mut Generation) -> Result<(), Failure> {
    Ok(generation.step().map(drop)?)
}

/// A thread that makes previews as the engine's do, and stands still when it must.
struct Maker {
    /// Those of the steps.
    threads: usize,
    state: Mutex<State>,
    changed: Condvar,
}

/// What a preview took: for one that is decoded, of the processor's time.
struct Made {
    took: Duration,
    /// Since it last stood still.
    last: Duration,
}

#[derive(Default)]
struct State {
    newest: Option<PendingPreview>,
    /// Whether it may work beside steps, within its share.
    open: bool,
    /// Whether the preview at work is the first, which is measured alone: without rests.
    settling: bool,
    idle: bool,
    stopping: bool,
    /// What the last preview took that is ready, and all of them and what is at work.
    took: Duration,
    total: Duration,
}

impl Maker {
    fn new(threads: usize) -> Self {
        Self { threads, state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, newest: PendingPreview) {
        self.state().newest = Some(newest);
        self.changed.notify_all();
    }

    /// Lets it work, or waits until it stands still.
    fn open(&self, open: bool) {
        let mut state = self.state();
        state.open = open;
        self.changed.notify_all();
        while !open && !state.idle {
            state = self.wait(state);
        }
    }

    /// Has it make one preview without rests, and waits for that.
    fn settle(&self) {
        let mut state = self.state();
        (state.settling, state.open) = (true, true);
        self.changed.notify_all();
        while state.newest.is_some() || !state.idle {
            state = self.wait(state);
        }
        (state.settling, state.open) = (false, false);
    }

    fn stop(&self) {
        self.state().stopping = true;
        self.changed.notify_all();
    }

    fn run(&self) -> Result<(), Failure> {
        let mut background: Option<Background> = None;
        let mut state = self.state();
        loop {
            if state.stopping {
                return Ok(());
            }
            let open = state.open;
            let Some(preview) = state.newest.take_if(|_| open) else {
                if !open && let Some(background) = &mut background {
                    background.pause();
                }
                state.idle = true;
                self.changed.notify_all();
                state = self.wait(state);
                continue;
            };
            state.idle = false;
            drop(state);
            let made = self.make(preview, &mut background);
            state = self.state();
            match made {
                Ok(made) => {
                    state.took = made.took;
                    state.total += made.last;
                }
                Err(error) => {
                    // Nobody shall wait for it.
                    state.idle = true;
                    state.newest = None;
                    self.changed.notify_all();
                    return Err(error);
                }
            }
        }
    }

    /// Makes a preview.
    fn make(&self, preview: PendingPreview, background: &mut Option<Background>) -> Result<Made, Failure> {
        let start = Instant::now();
        if !preview.must_be_decoded() {
            write(&preview.picture()?)?;
            let took = start.elapsed();
            return Ok(Made { took, last: took });
        }
        let background = background.get_or_insert_with(|| Background::enter(self.threads));
        background.begin();
        let mut took = Duration::ZERO;
        if let Some(picture) = preview.picture_while(&mut || self.go_on(background, &mut took))? {
            write(&picture)?;
        }
        let last = background.used();
        if self.state().settling {
            // It owes nothing for the one that was measured alone.
            *background = Background::enter(self.threads);
        }
        Ok(Made { took: took + last, last })
    }

    /// Rests as is due; while steps are taken without previews it stands still.
    fn go_on(&self, background: &mut Background, took: &mut Duration) -> bool {
        let until = Instant::now() + background.due();
        let mut state = self.state();
        loop {
            if state.stopping {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.open && (state.settling || left.is_zero()) {
                break;
            }
            if !state.open {
                *took += background.used();
                state.total += background.used();
                background.pause();
                state.idle = true;
                self.changed.notify_all();
                while !state.open && !state.stopping {
                    state = self.wait(state);
                }
                state.idle = false;
                background.begin();
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        !state.stopping
    }
}

/// As the file that listeners get.
fn write(image: &image::RgbImage) -> Result<(), Failure> {
    let (width, height) = image.dimensions();
    let picture = Picture::from_rgb(width, height, image.as_raw().clone()).map_err(Failure::failed)?;
    let output = Output { format: ImageFormat::Jpeg, quality: 80, ..Output::default() };
    encode_image(&picture, &output, &[]).map(drop).map_err(Failure::failed)
}

impl Beside {
    pub(super) fn line(&self) -> String {
        let ratios: Vec<f64> =
            self.with_ms.iter().zip(&self.plain_ms).map(|(with, plain)| with / plain).collect();
        let [least, most] = interval(&ratios);
        let often = match self.previews_per_step {
            0.0 => format!("none begun in {} steps", self.with_ms.len()),
            ready if ready >= 0.95 => "one for each step".to_owned(),
            ready => format!("one in {:.1} steps", 1.0 / ready.max(1e-9)),
        };
        format!(
            "{:>10.1} ms with, {:.1} ms without = {:.3} (95 %: {least:.3} to {most:.3}); {:.1} ms of a core each, {often}",
            median(&self.with_ms),
            median(&self.plain_ms),
            self.ratio,
            self.preview_ms,
        )
    }

    pub(super) fn method(&self) -> &'static str {
        self.method
    }
}

/// What holds the median of all ratios there could be in 19 of 20 cases: the values so many places below and above the middle
/// as a fair coin may be off (W. J. Conover, Practical Nonparametric Statistics, 3.2). Of fewer than six it is the ends, and says less.
fn interval(ratios: &[f64]) -> [f64; 2] {
    let mut sorted = ratios.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len() as f64;
    let away = 1.96 * count.sqrt() / 2.0;
    let place =
        |place: f64| sorted.get((place as usize).min(sorted.len().saturating_sub(1))).copied().unwrap_or(1.0);
    // Places count from 1 there.
    [place((count / 2.0 - away - 1.0).round().max(0.0)), place((count / 2.0 + away).round())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_narrows_with_the_count() {
        let ratios = |count: usize| (0..count).rev().map(|n| n as f64).collect::<Vec<_>>();
        assert_eq!(interval(&ratios(3)), [0.0, 2.0]);
        // Ranks 40 and 61 of 100: the binomial distribution gives them 0.9648 between them.
        assert_eq!(interval(&ratios(100)), [39.0, 60.0]);
    }

    #[test]
    fn the_line_tells_ratio_and_how_often() {
        let beside = |previews_per_step| Beside {
            method: "taesd",
            plain_ms: vec![100.0, 200.0, 100.0],
            with_ms: vec![101.0, 204.0, 103.0],
            ratio: 1.02,
            preview_ms: 50.0,
            previews_per_step,
        };
        let line =
            "     103.0 ms with, 100.0 ms without = 1.020 (95 %: 1.010 to 1.030); 50.0 ms of a core each, ";
        assert_eq!(beside(0.25).line(), format!("{line}one in 4.0 steps"));
        assert_eq!(beside(1.0).line(), format!("{line}one for each step"));
        assert_eq!(beside(0.0).line(), format!("{line}none begun in 3 steps"));
    }
}
