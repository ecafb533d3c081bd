//! `sd-worker serve`: the jobs API on a socket, until a signal ends it.

use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sd_engine::{EngineHandle, JobRouter, ModelBoard, ModelStatus};
use sd_http::{Api, ApiConfig, Metrics, ServeError, Server};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::args::ServeArgs;
use crate::exit::{Failure, say};
use crate::life::{Drained, drain};
use crate::pool::PipelineLoader;
use crate::registration::args::SupervisorArgs;
use crate::registration::{Identity, Registration};
use crate::reload::Reload;
use crate::signals::Signals;
use crate::store;
use crate::traces;
use crate::worker::Worker;

/// The transport's threads. They do little, but must not wait for the engine's.
const HTTP_THREADS: usize = 2;

/// How often what was measured is sorted into buckets.
const UPKEEP: Duration = Duration::from_secs(5);

pub(crate) fn run(args: ServeArgs, reload: Reload) -> Result<(), Failure> {
    let runtime = runtime()?;
    let ended = runtime.block_on(serve(Arc::new(args), reload));
    // Whoever is told to stop at once waits neither for a model that loads nor for a step that runs: the threads end with the
    // process. Their handles are not let go of, as `shutdown_background` would: to detach a thread that is just ending is a
    // segmentation fault in glibc (its bug 19951), which a worker ended with once in thousands of stops.
    std::mem::forget(runtime);
    ended
}

/// The transport's runtime.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("no runtime: {error}")))
}

async fn serve(args: Arc<ServeArgs>, mut reload: Reload) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    reload.warn();
    let (api, server, follow_files) = args.safety.resolve()?.split();
    let without_token = api.tokens.is_none();
    let scheme = if server.tls.is_some() { "https" } else { "http" };
    let worker = Worker::new(args.queue_capacity.into(), args.store.open()?);
    let router =
        worker.router.clone().with_prompts_logged(args.safety.log_prompts).with_trace_parents(traces::adopt);
    let models = worker.models.clone();
    let metrics = Metrics::install().map_err(Failure::failed)?;
    tokio::spawn(keep_up(metrics.clone()));
    let config = ApiConfig {
        metrics: Some(metrics),
        version: env!("CARGO_PKG_VERSION").into(),
        features: features().map(str::to_owned).collect(),
        faces: args.faces.faces(),
        https: server.tls.is_some(),
        ..api
    };
    let mut listen = args.listen;
    listen.set_port(args.supervisor.port.unwrap_or(listen.port()));
    let server =
        Server::bind(listen, Api::new(router.clone(), config), server).await.map_err(
            |error| match error {
                ServeError::TokenRequired(_) => Failure::refused(error),
                error => Failure::failed(error),
            },
        )?;
    // Supervisors and tests read the address from this line: the port may have been chosen just now.
    say(format!("listening on {scheme}://{}", server.local_addr()))?;
    if without_token {
        tracing::warn!("no token: anyone on this machine may use the worker");
    }

    if !without_token && scheme == "http" && !listen.ip().to_canonical().is_loopback() {
        tracing::warn!("no TLS: tokens and pictures can be read on the way, unless a proxy has it");
    }
    tokio::spawn(follow_files);

    let registration = identity(&args, server.local_addr()).map(|identity| {
        tracing::info!(id = identity.id, "registering with the router above");
        Registration::start(identity, &router, &models)
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(async {
        // A sender that is dropped stops the server as well.
        let _ = stopped.await;
    }));
    let ended = run_worker(worker, args, &mut signals, &mut reload, registration.as_ref()).await;
    let _ = stop.send(());
    tokio::select! {
        ended = serving => ended.map_err(|error| Failure::failed(format!("the server ended badly: {error}")))?,
        // Streams have their ends already; only whoever does not read them holds a connection.
        signal = signals.stop(&mut reload) => tracing::warn!(signal, "connections are cut off"),
    }
    if let Some(registration) = registration {
        registration.stopped().await;
    }
    ended
}

/// What the worker was built with.
fn features() -> impl Iterator<Item = &'static str> {
    sd_inference::accelerators().into_iter().chain(traces::BUILT_IN.then_some(traces::FEATURE))
}

/// Metrics are sorted also where nobody asks for them.
async fn keep_up(metrics: Metrics) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        metrics.upkeep();
    }
}

/// From loading the model to the last job.
async fn run_worker(
    worker: Worker,
    args: Arc<ServeArgs>,
    signals: &mut Signals,
    reload: &mut Reload,
    registration: Option<&Registration>,
) -> Result<(), Failure> {
    let (router, models) = (worker.router.clone(), worker.models.clone());
    // The socket answers while the model loads: /health is there at once, /ready says what it waits for.
    let loaded = Arc::clone(&args);
    let loading = tokio::task::spawn_blocking(move || start(worker, &loaded));
    let engine = tokio::select! {
        engine = loading => engine.map_err(Failure::failed)?,
        signal = signals.stop(reload) => {
            tracing::info!(signal, "stopping before the model is loaded");
            router.shutdown();
            return Ok(());
        }
    };
    let engine = match engine {
        // However this ends: as the threads of the runtime, see `run`.
        Ok(engine) => ManuallyDrop::new(engine),
        Err(failure) => {
            models.failed(failure.message.clone());
            return Err(failure);
        }
    };
    let drained = tokio::select! {
        broken = broken(&router, &models, &args) => return Err(broken),
        signal = signals.stop(reload) => {
            if models.status() == ModelStatus::Loading {
                tracing::info!(signal, "stopping before the model is loaded");
                router.shutdown();
                return Ok(());
            }
            tracing::info!(signal, "finishing what runs, refusing what is new");
            if let Some(registration) = registration {
                registration.stopping();
            }
            drain(&router, &models, signals, reload).await
        }
    };
    if drained == Drained::Finished {
        ManuallyDrop::into_inner(engine).join().map_err(Failure::failed)?;
    }
    drained.into_result(args.store.is_durable())
}

/// Who the worker is towards a router above, if there is one.
fn identity(args: &ServeArgs, address: SocketAddr) -> Option<Identity> {
    let SupervisorArgs { worker_id, queen_url, advertise_host, heartbeat_interval, .. } = &args.supervisor;
    let own = (!address.ip().is_unspecified()).then(|| address.ip().to_string());
    Some(Identity {
        url: queen_url.clone()?,
        interval: Duration::from_secs(*heartbeat_interval),
        id: worker_id.clone()?,
        model: args.default_model().to_owned(),
        device: args.model.device.to_string(),
        host: advertise_host.clone().or(own),
        port: address.port(),
    })
}

/// Reads what the models are and starts the engine, which loads them.
fn start(worker: Worker, args: &ServeArgs) -> Result<EngineHandle, Failure> {
    let loader = PipelineLoader::new(&args.models(), &args.pool)?;
    worker.start_pool(loader, &args.pool)
}

/// Says when the worker is ready, and waits until the engine ends although nobody told it to: a supervisor starts the
/// worker anew.
async fn broken(router: &JobRouter, models: &ModelBoard, args: &ServeArgs) -> Failure {
    match models.settled().await {
        // A model that is missing or broken was named by the user.
        ModelStatus::Failed(reason) => return Failure::refused(reason),
        _ => {
            store::resume(router);
            store::keep_tidy(router.clone());
            tracing::info!(model = args.default_model(), device = %args.model.device, "ready");
        }
    }
    models.stopped().await;
    match models.status() {
        ModelStatus::Failed(reason) => Failure::failed(reason),
        _ => Failure::failed("the engine stopped"),
    }
}
