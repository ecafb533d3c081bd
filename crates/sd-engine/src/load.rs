//! How fast the models are and how much there is to do: what a refused client is told about when to come back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::work::Work;

/// The bounds of what a client is told.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3600);

/// Measured speeds and known work, shared by the queue and the engine.
#[derive(Debug, Default)]
pub(crate) struct Load(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    speeds: HashMap<Arc<str>, Speed>,
    /// Jobs that wait, and their units, by model.
    waiting: HashMap<Arc<str>, (usize, f64)>,
    /// What is left of each running job.
    running: Vec<Work>,
    /// How many were refused since the queue was full and no place became free for them.
    refused: usize,
}

/// Moving means of one model.
#[derive(Debug, Default, Clone, Copy)]
struct Speed {
    /// Seconds of a unit of work, from steps.
    unit: Option<f64>,
    /// Seconds of a job beside its steps: prompts, decoding, files.
    rest: Option<f64>,
}

impl Speed {
    fn seconds(&self, units: f64) -> Option<f64> {
        Some(self.unit? * units)
    }
}

/// A new measurement counts a quarter.
fn moved(mean: Option<f64>, new: f64) -> Option<f64> {
    Some(mean.map_or(new, |mean| (3.0 * mean + new) / 4.0))
}

impl Load {
    /// Nothing panics while it holds the state, and if something did, the state would still be whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job begins to wait.
    pub(crate) fn enter(&self, work: &Work) {
        let mut state = self.state();
        let (jobs, units) = state.waiting.entry(Arc::clone(&work.model)).or_default();
        *jobs += 1;
        *units += work.units;
    }

    /// A place becomes free: its job waits no longer.
    pub(crate) fn leave(&self, work: &Work) {
        let mut state = self.state();
        state.refused = state.refused.saturating_sub(1);
        if let Some((jobs, units)) = state.waiting.get_mut(&work.model) {
            *jobs = jobs.saturating_sub(1);
            *units = (*units - work.units).max(0.0);
            if *jobs == 0 {
                state.waiting.remove(&work.model);
            }
        }
    }

    /// What is left to do of the jobs that run.
    pub(crate) fn running(&self, left: Vec<Work>) {
        self.state().running = left;
    }

    /// A step of `units` took so long.
    pub(crate) fn stepped(&self, model: &Arc<str>, units: f64, time: Duration) {
        if units > 0.0 {
            let mut state = self.state();
            let speed = state.speeds.entry(Arc::clone(model)).or_default();
            speed.unit = moved(speed.unit, time.as_secs_f64() / units);
        }
    }

    /// What a job took beside its steps.
    pub(crate) fn finished(&self, model: &Arc<str>, rest: Duration) {
        let mut state = self.state();
        let speed = state.speeds.entry(Arc::clone(model)).or_default();
        speed.rest = moved(speed.rest, rest.as_secs_f64());
    }

    /// A client is refused because the queue is full: when there may be a place for it. The next that is refused is told
    /// a later time, for the place will be taken.
    pub(crate) fn refuse(&self) -> Duration {
        let mut state = self.state();
        let seconds = state.next_place() + state.refused as f64 * state.mean_job();
        let waiting: usize = state.waiting.values().map(|(jobs, _)| jobs).sum();
        // Beyond that nobody knows who will come first.
        state.refused = (state.refused + 1).min(waiting);
        let bounded = seconds.clamp(SHORTEST.as_secs_f64(), LONGEST.as_secs_f64());
        Duration::try_from_secs_f64(bounded).unwrap_or(SHORTEST)
    }
}

impl State {
    /// Seconds until the first of the running jobs is over, and the next to wait begins.
    fn next_place(&self) -> f64 {
        let together = self.running.len() as f64;
        let left = self.running.iter().filter_map(|work| {
            let speed = self.speed(&work.model);
            // Those that run together share the time.
            Some(speed.seconds(work.units)? * together + speed.rest.unwrap_or(0.0))
        });
        left.reduce(f64::min).unwrap_or(0.0)
    }

    /// Seconds that one of the waiting jobs takes in the mean.
    fn mean_job(&self) -> f64 {
        let (mut count, mut seconds) = (0, 0.0);
        for (model, (jobs, units)) in &self.waiting {
            let speed = self.speed(model);
            let job = speed.seconds(*units).unwrap_or(0.0) + speed.rest.unwrap_or(0.0) * *jobs as f64;
            count += jobs;
            seconds += job;
        }
        if count == 0 { 0.0 } else { seconds / count as f64 }
    }

    /// Of a model that has not run yet, the mean of the others is the best guess.
    fn speed(&self, model: &Arc<str>) -> Speed {
        if let Some(speed) = self.speeds.get(model).filter(|speed| speed.unit.is_some()) {
            return *speed;
        }
        let mean = |part: fn(&Speed) -> Option<f64>| {
            let known: Vec<f64> = self.speeds.values().filter_map(part).collect();
            (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
        };
        Speed { unit: mean(|speed| speed.unit), rest: mean(|speed| speed.rest) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Shape;

    fn work(model: &str, units: f64) -> Work {
        Work { model: model.into(), units, shape: Shape::plain(64, 64) }
    }

    fn loaded() -> Load {
        let load = Load::default();
        load.stepped(&"a".into(), 10.0, Duration::from_secs(10));
        load.finished(&"a".into(), Duration::from_secs(2));
        load
    }

    #[test]
    fn each_refused_client_is_told_the_next_place() {
        let load = loaded();
        load.running(vec![work("a", 30.0)]);
        load.enter(&work("a", 10.0));
        load.enter(&work("a", 20.0));
        let seconds = |_| load.refuse().as_secs();
        // What runs ends in 30 + 2 seconds; after that, a job takes 15 + 2 in the mean.
        assert_eq!([0, 1, 2, 3].map(seconds), [32, 49, 66, 66]);
        load.leave(&work("a", 20.0));
        load.running(vec![work("a", 5.0)]);
        assert_eq!(load.refuse().as_secs(), 7 + 12);
    }

    #[test]
    fn jobs_that_run_together_share_the_time() {
        let load = loaded();
        load.running(vec![work("a", 30.0), work("a", 10.0)]);
        assert_eq!(load.refuse().as_secs(), 22);
    }

    #[test]
    fn what_was_not_measured_is_guessed_from_other_models_and_bounded() {
        let load = loaded();
        load.running(vec![work("b", 4.0)]);
        assert_eq!(load.refuse().as_secs(), 6);
        load.running(vec![work("b", 1e9)]);
        assert_eq!(load.refuse(), LONGEST);
        load.running(vec![]);
        let unknown = Load::default();
        unknown.running(vec![work("a", 1.0)]);
        assert_eq!(unknown.refuse(), SHORTEST);
    }

    #[test]
    fn a_speed_follows_what_was_measured_last() {
        let load = loaded();
        for _ in 0..40 {
            load.stepped(&"a".into(), 10.0, Duration::from_secs(20));
        }
        load.running(vec![work("a", 30.0)]);
        assert_eq!(load.refuse().as_secs_f64().round(), 62.0);
    }
}
