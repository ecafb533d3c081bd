//! `sd-worker serve`: the jobs API on a socket, until a signal ends it.

use sd_engine::ModelStatus;
use sd_http::{Api, ApiConfig, ServeError, Server};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::args::ServeArgs;
use crate::exit::{Failure, say};
use crate::pool::PipelineLoader;
use crate::worker::Worker;

/// The transport's threads. They do little, but must not wait for the engine's.
const HTTP_THREADS: usize = 2;

pub(crate) fn run(args: &ServeArgs) -> Result<(), Failure> {
    runtime()?.block_on(serve(args))
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

async fn serve(args: &ServeArgs) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let (api, server, follow_files) = args.safety.resolve()?.split();
    let without_token = api.tokens.is_none();
    let scheme = if server.tls.is_some() { "https" } else { "http" };
    let worker = Worker::new(args.queue_capacity.into());
    let router = worker.router.clone().with_prompts_logged(args.safety.log_prompts);
    let models = worker.models.clone();
    let config = ApiConfig {
        version: env!("CARGO_PKG_VERSION").into(),
        features: sd_inference::accelerators().into_iter().map(str::to_owned).collect(),
        ..api
    };
    let server = Server::bind(args.listen, Api::new(router.clone(), config), server).await.map_err(
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

    if !without_token && scheme == "http" && !args.listen.ip().to_canonical().is_loopback() {
        tracing::warn!("no TLS: tokens and pictures can be read on the way, unless a proxy has it");
    }
    tokio::spawn(follow_files);

    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(async {
        // A sender that is dropped stops the server as well.
        let _ = stopped.await;
    }));
    // The socket answers while the model loads: /health is there at once, /ready says what it waits for.
    let started = tokio::task::block_in_place(|| {
        let loader = PipelineLoader::new(&args.model, &args.nets, &args.pool)?;
        worker.start_pool(loader, &args.pool)
    });
    let engine = match started {
        Ok(engine) => engine,
        Err(failure) => {
            models.failed(failure.message.clone());
            return Err(failure);
        }
    };
    if let ModelStatus::Failed(reason) = models.settled().await {
        return Err(Failure::refused(reason));
    }
    tracing::info!(model = args.model.name(), device = %args.model.device, "ready");

    let signal = signals.next().await;
    tracing::info!(signal, "finishing what runs, refusing what is new");
    router.shutdown();
    tokio::select! {
        () = models.stopped() => {}
        signal = signals.next() => tracing::warn!(signal, "stopping at once"),
    }
    let _ = stop.send(());
    serving.await.map_err(|error| Failure::failed(format!("the server ended badly: {error}")))?;
    match engine.is_finished() {
        true => engine.join().map_err(Failure::failed),
        false => Ok(()),
    }
}

/// SIGTERM and Ctrl-C.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let terminate = signal(SignalKind::terminate())
                .map_err(|error| Failure::failed(format!("no signal handler: {error}")))?;
            Ok(Self { terminate })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next one and tells its name.
    async fn next(&mut self) -> &'static str {
        #[cfg(unix)]
        {
            tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = tokio::signal::ctrl_c() => "SIGINT",
            }
        }
        #[cfg(not(unix))]
        {
            let _ = tokio::signal::ctrl_c().await;
            "Ctrl-C"
        }
    }
}
