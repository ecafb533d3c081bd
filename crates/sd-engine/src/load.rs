//! How fast the models are and how much there is to do: what a refused client is told about when to come back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::work::{Kind, Work};

/// The bounds of what a client is told.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3600);

/// Measured speeds and known work, shared by the queue and the engine.
#[derive(Debug, Default)]
pub(crate) struct Load(Mutex<State>);

/// What is measured together.
type Pace = (Arc<str>, Kind);

#[derive(Debug, Default)]
struct State {
    speeds: HashMap<Pace, Speed>,
    /// What getting each model ready takes.
    readying: HashMap<Arc<str>, Readying>,
    /// The models that are loaded.
    held: Vec<Arc<str>>,
    /// The model that is being loaded or warmed up.
    preparing: Option<Preparing>,
    /// Jobs that wait, and their units.
    waiting: HashMap<Pace, (usize, f64)>,
    /// What is left of each running job.
    running: Vec<Work>,
    /// How many were refused since the queue was full and no place became free for them.
    refused: usize,
}

/// Moving means of what one model does.
#[derive(Debug, Default, Clone, Copy)]
struct Speed {
    /// Seconds of a unit of work, from steps.
    unit: Option<f64>,
    /// Whether that is of a warm-up, which is slow: memory is new and caches are cold.
    is_cold: bool,
    /// Seconds of a job beside its steps: prompts, decoding, files.
    rest: Option<f64>,
}

/// Moving means of seconds.
#[derive(Debug, Default, Clone, Copy)]
struct Readying {
    load: Option<f64>,
    warm_up: Option<f64>,
}

/// Why a model is got ready, while it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Preparation {
    /// A job waits for it, which gives its place back as soon as the model is loaded.
    ForJob,
    /// Somebody asked for it; a warm-up may follow.
    Ahead { warms_up: bool },
    /// It is loaded and takes a step to warm up.
    WarmUp,
}

#[derive(Debug)]
struct Preparing {
    model: Arc<str>,
    what: Preparation,
    since: Instant,
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

fn mean(known: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = known.fold((0_u32, 0.0), |(count, sum), one| (count + 1, sum + one));
    (count > 0).then(|| sum / f64::from(count))
}

fn pace(work: &Work) -> Pace {
    (Arc::clone(&work.model), work.kind)
}

impl Load {
    /// Nothing panics while it holds the state, and if something did, the state would still be whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job begins to wait.
    pub(crate) fn enter(&self, work: &Work) {
        let mut state = self.state();
        let (jobs, units) = state.waiting.entry(pace(work)).or_default();
        *jobs += 1;
        *units += work.units;
    }

    /// A place becomes free: its job waits no longer.
    pub(crate) fn leave(&self, work: &Work) {
        let mut state = self.state();
        state.refused = state.refused.saturating_sub(1);
        if let Some((jobs, units)) = state.waiting.get_mut(&pace(work)) {
            *jobs = jobs.saturating_sub(1);
            *units = (*units - work.units).max(0.0);
            if *jobs == 0 {
                state.waiting.remove(&pace(work));
            }
        }
    }

    /// What is left to do of the jobs that run.
    pub(crate) fn running(&self, left: Vec<Work>) {
        self.state().running = left;
    }

    /// A step of `units` took so long.
    pub(crate) fn stepped(&self, work: &Work, units: f64, time: Duration) {
        if units > 0.0 {
            let mut state = self.state();
            let speed = state.speeds.entry(pace(work)).or_default();
            let before = speed.unit.filter(|_| !speed.is_cold);
            speed.unit = moved(before, time.as_secs_f64() / units);
            speed.is_cold = false;
        }
    }

    /// The step of a warm-up took so long: the best guess until there is a step of a job, the first of which takes its place.
    pub(crate) fn stepped_cold(&self, work: &Work, units: f64, time: Duration) {
        let mut state = self.state();
        let speed = state.speeds.entry(pace(work)).or_default();
        if units > 0.0 && speed.unit.is_none() {
            speed.unit = Some(time.as_secs_f64() / units);
            speed.is_cold = true;
        }
    }

    /// What a job took beside its steps.
    pub(crate) fn finished(&self, work: &Work, rest: Duration) {
        let mut state = self.state();
        let speed = state.speeds.entry(pace(work)).or_default();
        speed.rest = moved(speed.rest, rest.as_secs_f64());
    }

    /// The engine begins to get a model ready. That ends with [`holds`](Self::holds).
    pub(crate) fn prepares(&self, model: &Arc<str>, what: Preparation) {
        let model = Arc::clone(model);
        self.state().preparing = Some(Preparing { model, what, since: Instant::now() });
    }

    /// Loading a model took so long, room made for it included.
    pub(crate) fn loaded(&self, model: &Arc<str>, time: Duration) {
        let mut state = self.state();
        let readying = state.readying.entry(Arc::clone(model)).or_default();
        readying.load = moved(readying.load, time.as_secs_f64());
    }

    /// Its warm-up took so long, and is over.
    pub(crate) fn warmed_up(&self, model: &Arc<str>, time: Duration) {
        let mut state = self.state();
        let readying = state.readying.entry(Arc::clone(model)).or_default();
        readying.warm_up = moved(readying.warm_up, time.as_secs_f64());
        state.preparing = None;
    }

    /// These models are loaded, and none is being loaded.
    pub(crate) fn holds(&self, models: Vec<Arc<str>>) {
        let mut state = self.state();
        state.held = models;
        state.preparing = None;
    }

    /// A client is refused because the queue is full: when there may be a place for it. The next that is refused is told
    /// a later time, for the place will be taken.
    pub(crate) fn refuse(&self) -> Duration {
        self.refuse_at(Instant::now())
    }

    fn refuse_at(&self, now: Instant) -> Duration {
        let mut state = self.state();
        let seconds = state.next_place(now) + state.refused as f64 * state.mean_job();
        let waiting: usize = state.waiting.values().map(|(jobs, _)| jobs).sum();
        // Beyond that nobody knows who will come first.
        state.refused = (state.refused + 1).min(waiting);
        let bounded = seconds.clamp(SHORTEST.as_secs_f64(), LONGEST.as_secs_f64());
        Duration::try_from_secs_f64(bounded).unwrap_or(SHORTEST)
    }
}

impl State {
    /// Seconds until the next of those that wait begins.
    fn next_place(&self, now: Instant) -> f64 {
        match &self.preparing {
            Some(preparing) if preparing.what == Preparation::ForJob => self.prepared_in(preparing, now),
            Some(preparing) => self.prepared_in(preparing, now) + self.loads_first(),
            None => self.first_over() + self.loads_first(),
        }
    }

    /// Seconds until the first of the running jobs is over.
    fn first_over(&self) -> f64 {
        let together = self.running.len() as f64;
        let left = self.running.iter().filter_map(|work| {
            let speed = self.speed(&pace(work));
            // Those that run together share the time.
            Some(speed.seconds(work.units)? * together + speed.rest.unwrap_or(0.0))
        });
        left.reduce(f64::min).unwrap_or(0.0)
    }

    /// Seconds until a model that is being got ready is.
    fn prepared_in(&self, preparing: &Preparing, now: Instant) -> f64 {
        let Preparing { model, what, since } = preparing;
        let whole = match what {
            Preparation::ForJob | Preparation::Ahead { warms_up: false } => self.load(model),
            Preparation::Ahead { warms_up: true } => self.load(model) + self.warm_up(model),
            Preparation::WarmUp => self.warm_up(model),
        };
        (whole - now.saturating_duration_since(*since).as_secs_f64()).max(0.0)
    }

    /// Seconds for which the next job waits for its model. Those whose model is loaded go first.
    fn loads_first(&self) -> f64 {
        let models = self.waiting.keys().map(|(model, _)| model);
        if models.clone().any(|model| self.is_there(model)) {
            return 0.0;
        }
        mean(models.map(|model| self.load(model))).unwrap_or(0.0)
    }

    /// Seconds that one of the waiting jobs takes in the mean. What was never measured counts as the others do; each model
    /// that is not loaded is loaded once, since jobs of one model go together.
    fn mean_job(&self) -> f64 {
        let (mut known, mut seconds) = (0_usize, 0.0);
        for (pace, (jobs, units)) in &self.waiting {
            let speed = self.speed(pace);
            if let Some(steps) = speed.seconds(*units) {
                known += jobs;
                seconds += steps + speed.rest.unwrap_or(0.0) * *jobs as f64;
            }
        }
        let job = if known == 0 { 0.0 } else { seconds / known as f64 };
        let mut missing: Vec<_> =
            self.waiting.keys().map(|(model, _)| model).filter(|model| !self.is_there(model)).collect();
        missing.sort_unstable();
        missing.dedup();
        // That of the next place is counted there.
        let loads = missing.into_iter().map(|model| self.load(model)).sum::<f64>() - self.loads_first();
        let jobs: usize = self.waiting.values().map(|(jobs, _)| jobs).sum();
        job + loads.max(0.0) / jobs.max(1) as f64
    }

    /// Whether a model is loaded, or is going to be.
    fn is_there(&self, model: &Arc<str>) -> bool {
        let coming = self.preparing.as_ref().is_some_and(|preparing| preparing.model == *model);
        coming || self.held.contains(model)
    }

    /// Seconds that loading takes; of a model that was never loaded, what the others take is the best guess.
    fn load(&self, model: &Arc<str>) -> f64 {
        self.readying(model, |readying| readying.load)
    }

    fn warm_up(&self, model: &Arc<str>) -> f64 {
        self.readying(model, |readying| readying.warm_up)
    }

    fn readying(&self, model: &Arc<str>, part: fn(&Readying) -> Option<f64>) -> f64 {
        let own = self.readying.get(model).and_then(part);
        own.or_else(|| mean(self.readying.values().filter_map(part))).unwrap_or(0.0)
    }

    /// Of what a model has not done yet, the mean of the others that did is the best guess.
    fn speed(&self, pace: &Pace) -> Speed {
        if let Some(speed) = self.speeds.get(pace).filter(|speed| speed.unit.is_some()) {
            return *speed;
        }
        let others = self.speeds.iter().filter(|((_, kind), _)| *kind == pace.1).map(|(_, speed)| speed);
        let unit = mean(others.clone().filter_map(|speed| speed.unit));
        Speed { unit, is_cold: false, rest: mean(others.filter_map(|speed| speed.rest)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Shape;

    fn work(model: &str, units: f64) -> Work {
        Work { model: model.into(), kind: Kind::Drawing, units, shape: Shape::plain(64, 64) }
    }

    fn enlarging(model: &str, units: f64) -> Work {
        Work { kind: Kind::Enlarging, ..work(model, units) }
    }

    /// A unit of `a`, which is loaded, takes a second and a job two more.
    fn loaded() -> Load {
        let load = Load::default();
        load.stepped(&work("a", 0.0), 10.0, Duration::from_secs(10));
        load.finished(&work("a", 0.0), Duration::from_secs(2));
        load.holds(vec!["a".into()]);
        load
    }

    /// What so many clients are told who are refused one after the other.
    fn told(load: &Load, clients: usize) -> Vec<u64> {
        (0..clients).map(|_| load.refuse().as_secs()).collect()
    }

    #[test]
    fn each_refused_client_is_told_the_next_place() {
        let load = loaded();
        load.running(vec![work("a", 30.0)]);
        load.enter(&work("a", 10.0));
        load.enter(&work("a", 20.0));
        // What runs ends in 30 + 2 seconds; after that, a job takes 15 + 2 in the mean.
        assert_eq!(told(&load, 4), [32, 49, 66, 66]);
        load.leave(&work("a", 20.0));
        load.running(vec![work("a", 5.0)]);
        assert_eq!(load.refuse().as_secs(), 7 + 12);
    }

    #[test]
    fn the_first_step_of_a_job_counts_more_than_a_warm_up() {
        let load = Load::default();
        load.holds(vec!["a".into()]);
        load.running(vec![work("a", 30.0)]);
        load.stepped_cold(&work("a", 0.0), 1.0, Duration::from_secs(10));
        assert_eq!(told(&load, 1), [300]);
        load.stepped(&work("a", 0.0), 10.0, Duration::from_secs(10));
        assert_eq!(told(&load, 1), [30]);
        // One of a model that is loaded again tells nothing new.
        load.stepped_cold(&work("a", 0.0), 1.0, Duration::from_secs(10));
        assert_eq!(told(&load, 1), [30]);
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
            load.stepped(&work("a", 0.0), 10.0, Duration::from_secs(20));
        }
        load.running(vec![work("a", 30.0)]);
        assert_eq!(load.refuse().as_secs_f64().round(), 62.0);
    }

    #[test]
    fn a_model_that_must_be_loaded_is_waited_for() {
        let load = loaded();
        load.loaded(&"a".into(), Duration::from_secs(5));
        load.loaded(&"b".into(), Duration::from_secs(40));
        load.running(vec![work("a", 10.0)]);
        load.enter(&work("b", 8.0));
        // After 10 + 2 seconds, nobody begins before `b` is loaded. Its job takes 8 + 2 after that.
        assert_eq!(told(&load, 2), [12 + 40, 12 + 40 + 10]);
        // Jobs of the model that is there go first: the load is spread over all.
        let load = loaded();
        load.loaded(&"b".into(), Duration::from_secs(40));
        load.running(vec![work("a", 10.0)]);
        for waiting in [work("b", 8.0), work("a", 8.0), work("a", 8.0), work("a", 8.0)] {
            load.enter(&waiting);
        }
        assert_eq!(told(&load, 2), [12, 12 + 10 + 40 / 4]);
        // Of a model that was never loaded, the others are the best guess.
        let load = loaded();
        load.loaded(&"a".into(), Duration::from_secs(5));
        load.enter(&work("c", 8.0));
        assert_eq!(load.refuse().as_secs(), 5);
    }

    #[test]
    fn a_load_or_warm_up_on_the_way_counts_for_what_is_left_of_it() {
        let load = loaded();
        let b = Arc::from("b");
        load.loaded(&b, Duration::from_secs(40));
        load.warmed_up(&b, Duration::from_secs(20));
        load.enter(&work("b", 8.0));
        let after = |seconds| Instant::now() + Duration::from_secs(seconds);
        let near =
            |told: Duration, seconds: f64| assert!((told.as_secs_f64() - seconds).abs() < 1.0, "{told:?}");
        // The job's own place is free when its model is there.
        load.prepares(&b, Preparation::ForJob);
        near(load.refuse_at(after(10)), 30.0);
        // It is not loaded a second time.
        load.leave(&work("b", 8.0));
        load.enter(&work("b", 8.0));
        load.prepares(&b, Preparation::Ahead { warms_up: true });
        near(load.refuse_at(after(10)), 50.0);
        load.leave(&work("b", 8.0));
        load.enter(&work("b", 8.0));
        load.holds(vec![b.clone()]);
        load.prepares(&b, Preparation::WarmUp);
        near(load.refuse_at(after(5)), 15.0);
        // One that takes longer than ever may be over at any moment.
        load.leave(&work("b", 8.0));
        load.enter(&work("b", 8.0));
        load.prepares(&b, Preparation::ForJob);
        assert_eq!(load.refuse_at(after(100)), SHORTEST);
        load.leave(&work("b", 8.0));
        load.enter(&work("b", 8.0));
        load.holds(vec![b]);
        load.running(vec![work("b", 9.0)]);
        near(load.refuse(), 11.0);
    }

    #[test]
    fn enlarging_is_measured_by_itself() {
        let load = loaded();
        load.running(vec![enlarging("a", 30.0)]);
        assert_eq!(load.refuse(), SHORTEST, "the UNet's speed says nothing about a network's");
        load.stepped(&enlarging("a", 0.0), 10.0, Duration::from_secs(40));
        assert_eq!(load.refuse().as_secs(), 120);
        load.running(vec![work("a", 30.0)]);
        assert_eq!(load.refuse().as_secs(), 32, "the other way round neither");
    }

    #[test]
    fn a_job_that_nobody_can_measure_yet_counts_as_the_others() {
        let load = loaded();
        load.running(vec![work("a", 10.0)]);
        for waiting in [work("a", 8.0), enlarging("a", 1e6), work("a", 8.0)] {
            load.enter(&waiting);
        }
        assert_eq!(told(&load, 3), [12, 22, 32]);
    }
}
