//! Several models: loading by request, room for them, and what is told of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use operations_contract::{ErrorCode, JobEvent, JobId, ModelState, Operation, Terminator};
use sd_engine::{
    EngineHandle, GenerationEngine, GeneratorError, JobRegistry, JobRouter, ModelBoard, ModelLoader,
    ModelMemory, ModelOffer, ModelRules, ModelStatus, Policy, RequestQueue, SubmitError,
};

use crate::generator::TestGenerator;
use crate::support::Worker;

/// Loads generators by their names and keeps account of it.
struct TestLoader {
    ids: Vec<&'static str>,
    generator: TestGenerator,
    /// Bytes of the weights of each.
    weights: u64,
    loads: Loads,
    broken: BTreeSet<&'static str>,
}

/// How long loading the model `slow` takes.
const SLOW: Duration = Duration::from_millis(1500);

#[derive(Clone, Default)]
struct Loads(Arc<Mutex<Vec<String>>>);

impl Loads {
    fn list(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn generator(id: &str, base: &TestGenerator) -> TestGenerator {
    let mut generator = base.clone();
    generator.capabilities.id = id.to_owned();
    generator.capabilities.aliases.clear();
    generator
}

impl ModelLoader for TestLoader {
    type Generator = TestGenerator;

    fn offers(&self) -> Vec<ModelOffer> {
        let offer = |id: &&str| ModelOffer {
            capabilities: generator(id, &self.generator).capabilities,
            memory: Some(ModelMemory {
                weights: if *id == "huge" { 1000 } else { self.weights },
                workspace: 10,
            }),
        };
        self.ids.iter().map(offer).collect()
    }

    fn load(&mut self, id: &str) -> Result<TestGenerator, GeneratorError> {
        self.loads.0.lock().unwrap().push(id.to_owned());
        if id == "slow" {
            std::thread::sleep(SLOW);
        }
        assert!(!self.broken.contains("panics") || id != "panics", "as asked for");
        match self.broken.contains(id) {
            true => Err(GeneratorError::failed("unet/config.json is cut off")),
            false => Ok(generator(id, &self.generator)),
        }
    }
}

struct Pool {
    worker: Worker,
    loads: Loads,
}

const IDS: [&str; 4] = ["a", "b", "c", "huge"];

async fn pool(rules: ModelRules, broken: &[&'static str]) -> Pool {
    let ids = IDS.iter().chain(broken).copied().collect();
    pool_of(ids, rules, Policy::default(), broken).await
}

async fn pool_of(ids: Vec<&'static str>, rules: ModelRules, policy: Policy, broken: &[&'static str]) -> Pool {
    let (queue, receiver) = RequestQueue::new(64);
    let models = ModelBoard::new();
    let router = JobRouter::new(queue, JobRegistry::in_memory().unwrap(), models.clone());
    let generator = TestGenerator::new();
    let TestGenerator { gate, network, log, .. } = generator.clone();
    let (loads, broken) = (Loads::default(), broken.iter().copied().collect());
    let loader = TestLoader { ids, generator, weights: 40, loads: loads.clone(), broken };
    let engine: EngineHandle = GenerationEngine::with_models(loader, receiver, models.clone())
        .with_rules(rules)
        .with_policy(policy)
        .start()
        .unwrap();
    models.settled().await;
    Pool { worker: Worker { router, models, engine, gate, network, log }, loads }
}

impl Pool {
    fn submit(&self, model: &str, prompt: &str) -> JobId {
        let mut operation = Operation::generate(prompt);
        operation.common_mut().unwrap().model = Some(model.to_owned());
        self.worker.accept(operation)
    }

    async fn done(&self, model: &str) {
        let id = self.submit(model, "a cat");
        assert_eq!(self.worker.story(&id).await.end, Terminator::Done, "{model}");
    }

    fn state(&self, model: &str) -> ModelState {
        self.worker.router.find_model(model).unwrap().state
    }

    fn loaded(&self) -> Vec<String> {
        let models = self.worker.router.models().into_iter();
        let loaded = models.filter(|model| model.state == ModelState::Loaded);
        loaded.map(|model| model.capabilities.id.clone()).collect()
    }

    async fn until(&self, model: &str, state: ModelState) {
        let begun = Instant::now();
        while self.state(model) != state {
            assert!(begun.elapsed() < Duration::from_secs(10), "{model} is {:?}", self.state(model));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test]
async fn a_job_loads_its_model_and_says_so() {
    let pool = pool(ModelRules::default(), &[]).await;
    assert_eq!(pool.loaded(), ["a"], "the default is loaded before the worker is ready");
    let id = pool.submit("b", "a cat");
    let story = pool.worker.story(&id).await;
    assert_eq!(story.types()[..3], ["queued", "narration", "started"]);
    let JobEvent::Narration { message, .. } = &story.events[1].1 else { panic!("{story:?}") };
    assert_eq!(message, "model `b` is being loaded");
    assert_eq!(pool.worker.router.job(&id).unwrap().model, "b");
    assert_eq!(pool.loaded(), ["a", "b"]);
    pool.done("b").await;
    assert_eq!(pool.loads.list(), ["a", "b"], "a loaded model is not loaded again");
}

#[tokio::test]
async fn alternating_models_are_not_loaded_in_turn() {
    // There is room for one.
    let pool = pool(ModelRules { budget: Some(50), ..ModelRules::default() }, &[]).await;
    let first = pool.submit("a", "gated a");
    pool.worker.gate.reached().await;
    let ids: Vec<_> = (0..20).map(|turn| pool.submit(["b", "a"][turn % 2], "a cat")).collect();
    pool.worker.gate.open();
    for id in ids.iter().chain([&first]) {
        assert_eq!(pool.worker.story(id).await.end, Terminator::Done);
    }
    assert_eq!(pool.loads.list(), ["a", "b"]);
}

#[tokio::test]
async fn without_patience_turns_come_before_models() {
    let policy = Policy { patience: Duration::ZERO, ..Policy::default() };
    let rules = ModelRules { budget: Some(50), ..ModelRules::default() };
    let pool = pool_of(vec!["a", "b"], rules, policy, &[]).await;
    let first = pool.submit("a", "gated a");
    pool.worker.gate.reached().await;
    let ids: Vec<_> = (0..4).map(|turn| pool.submit(["b", "a"][turn % 2], "a cat")).collect();
    pool.worker.gate.open();
    for id in ids.iter().chain([&first]) {
        pool.worker.story(id).await;
    }
    assert_eq!(pool.loads.list(), ["a", "b", "a", "b", "a"]);
}

#[tokio::test]
async fn what_was_not_used_longest_makes_room() {
    let pool = pool(ModelRules { budget: Some(90), ..ModelRules::default() }, &[]).await;
    pool.done("b").await;
    assert_eq!(pool.loaded(), ["a", "b"], "40 + 40 + 10 fit");
    pool.done("a").await;
    pool.done("c").await;
    assert_eq!(pool.loaded(), ["a", "c"]);
    assert_eq!(pool.state("b"), ModelState::Unloaded);
    assert!(pool.worker.router.readiness().is_ok());
}

#[tokio::test]
async fn what_can_never_fit_is_refused_with_figures() {
    let pool = pool(ModelRules { budget: Some(90), ..ModelRules::default() }, &[]).await;
    let mut operation = Operation::generate("a cat");
    operation.common_mut().unwrap().model = Some("huge".into());
    let error = pool.worker.router.submit(operation).unwrap_err();
    assert!(matches!(error, SubmitError::ModelTooLarge(_)), "{error}");
    assert_eq!(error.detail().code, ErrorCode::OutOfMemory);
    assert!(error.to_string().starts_with("model `huge` needs 0.000 GB"), "{error}");
    assert!(matches!(pool.worker.router.load_model("huge"), Err(SubmitError::ModelTooLarge(_))));
    assert!(pool.worker.router.find_model("huge").unwrap().view().error.is_some());
    pool.done("b").await;
}

#[tokio::test]
async fn a_model_is_unloaded_when_nobody_uses_it_and_comes_back() {
    let rules = ModelRules { idle_unload: Some(Duration::from_millis(30)), ..ModelRules::default() };
    let pool = pool(rules, &[]).await;
    pool.until("a", ModelState::Unloaded).await;
    assert!(pool.worker.router.readiness().is_ok(), "it serves on request");
    pool.done("a").await;
    assert_eq!(pool.loads.list(), ["a", "a"]);
    pool.until("a", ModelState::Unloaded).await;
}

#[tokio::test]
async fn models_are_loaded_and_unloaded_on_request_when_nothing_runs() {
    let pool = pool(ModelRules::default(), &[]).await;
    let running = pool.worker.occupy().await;
    let router = &pool.worker.router;
    assert_eq!(router.load_model("b").unwrap().state, ModelState::Unloaded);
    assert_eq!(router.unload_model("a").unwrap().state, ModelState::Loaded);
    let next = pool.submit("c", "next");
    pool.worker.gate.open();
    for id in [&running, &next] {
        assert_eq!(pool.worker.story(id).await.end, Terminator::Done, "what runs is finished");
    }
    assert_eq!(pool.loaded(), ["b", "c"]);
    assert!(matches!(router.load_model("x"), Err(SubmitError::ModelNotFound { .. })));
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_fails_its_own_jobs() {
    for broken in ["broken", "panics"] {
        let pool = pool(ModelRules::default(), &[broken]).await;
        let running = pool.worker.occupy().await;
        let failing = [pool.submit(broken, "1"), pool.submit(broken, "2")];
        let other = pool.submit("b", "a cat");
        pool.worker.gate.open();
        for id in &failing {
            let story = pool.worker.story(id).await;
            let Terminator::Error(message) = &story.end else { panic!("{story:?}") };
            let told = format!("model `{broken}` cannot be loaded: ");
            assert!(message.starts_with(&told), "{message}");
        }
        for id in [&running, &other] {
            assert_eq!(pool.worker.story(id).await.end, Terminator::Done);
        }
        let loads = pool.loads.list();
        assert_eq!(
            loads.iter().filter(|id| *id == broken).count(),
            1,
            "one attempt for all that wait: {loads:?}"
        );
        assert_eq!(pool.state(broken), ModelState::Failed);
        // The file may have been mended.
        let again = pool.submit(broken, "3");
        assert!(matches!(pool.worker.story(&again).await.end, Terminator::Error(_)));
    }
}

#[tokio::test]
async fn a_default_that_cannot_be_loaded_is_told() {
    let pool = pool_of(vec!["broken", "a"], ModelRules::default(), Policy::default(), &["broken"]).await;
    assert_eq!(pool.worker.models.status(), ModelStatus::Failed("unet/config.json is cut off".into()));
    let error = pool.worker.router.submit(Operation::generate("a cat")).unwrap_err();
    assert_eq!(error, SubmitError::NotReady("unet/config.json is cut off".into()));
    pool.worker.engine.join().unwrap();
}

#[tokio::test]
async fn the_worker_is_ready_after_a_step() {
    let pool = pool(ModelRules { warm_up: true, ..ModelRules::default() }, &[]).await;
    assert_eq!(pool.worker.log.lines(), ["warm-up:begin", "warm-up:1"]);
    pool.worker.router.load_model("b").unwrap();
    pool.until("b", ModelState::Loaded).await;
    pool.done("b").await;
    assert_eq!(pool.worker.log.lines()[2..4], ["warm-up:begin", "warm-up:1"]);
}

#[tokio::test]
async fn a_model_that_is_not_there_is_refused_by_name() {
    let pool = pool(ModelRules::default(), &[]).await;
    let mut operation = Operation::generate("a cat");
    operation.common_mut().unwrap().model = Some("x".into());
    let error = pool.worker.router.submit(operation).unwrap_err();
    assert_eq!(error.to_string(), "no model `x` here; there is `a`, `b`, `c`, `huge`");
}

/// Nobody can begin before the model that jobs wait for is loaded: a client that finds no place is told so.
#[tokio::test]
async fn a_refused_client_is_told_to_wait_for_a_model_that_is_not_loaded() {
    // Room for one model.
    let rules = ModelRules { budget: Some(60), ..ModelRules::default() };
    let pool = pool_of(vec!["a", "slow"], rules, Policy::default(), &[]).await;
    pool.done("slow").await;
    pool.done("a").await;
    let running = pool.submit("a", "gated");
    pool.worker.gate.reached().await;
    let refused = || loop {
        let mut operation = Operation::generate("a cat");
        operation.common_mut().unwrap().model = Some("slow".to_owned());
        match pool.worker.router.submit(operation) {
            Ok(_) => {}
            Err(SubmitError::QueueFull { retry_after, .. }) => break retry_after,
            Err(error) => panic!("{error}"),
        }
    };
    // The rest of what runs takes next to nothing.
    let told = refused();
    assert!(told >= SLOW, "{told:?}");
    pool.worker.router.cancel(&running).unwrap();
    pool.worker.gate.open();
}
