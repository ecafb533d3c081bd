//! `sd-worker bench --latency`: how long requests that need no model take while pictures are made.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use operations_contract::{Common, ImageGeneration, JobId, Operation};
use sd_engine::{JobRegistry, JobRouter, PartNames, Retention, Store, SubmitError};
use sd_http::{Api, ApiConfig, Server, ServerConfig};
use sd_inference::Pipeline;
use tokio::sync::oneshot;

use crate::exit::{Failure, say};
use crate::serve;
use crate::worker::Worker;

/// The routes that are asked, in turn.
const ROUTES: [&str; 2] = ["/health", "/v1/jobs"];
/// Between two requests: a client that asks without a pause measures itself.
const PAUSE: Duration = Duration::from_millis(2);
/// Jobs that wait while it is measured, all the time.
const WAITING: usize = 8;
/// Steps of a job: the most, so that steps are what is measured.
const STEPS: u32 = 150;

/// How often it is changed between nothing that runs and pictures that are made: what else the machine does shall fall on
/// both.
const TURNS: usize = 5;

/// Where the jobs are kept.
pub(crate) fn registry(data_dir: Option<&Path>) -> Result<JobRegistry, Failure> {
    let store = match data_dir {
        Some(dir) => Store::open(dir).map_err(Failure::refused)?,
        None => Store::in_memory().map_err(Failure::failed)?,
    };
    JobRegistry::new(store, Retention::default()).map_err(Failure::failed)
}

/// Serves `pipeline` on a free port and asks each route `requests` times while nothing runs, and as often while pictures
/// of `size` are made.
pub(crate) fn run(
    pipeline: Pipeline,
    name: &str,
    size: u32,
    requests: usize,
    registry: JobRegistry,
) -> Result<(), Failure> {
    let runtime = serve::runtime()?;
    let worker = Worker::new(WAITING, registry);
    let (router, models) = (worker.router.clone(), worker.models.clone());
    let engine = worker.start(pipeline, Vec::new(), Default::default(), name, PartNames::default())?;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = runtime.block_on(async {
        models.settled().await;
        let api = Api::new(router.clone(), ApiConfig::default());
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        Server::bind(any_port, api, ServerConfig::default()).await.map_err(Failure::failed)
    })?;
    let address = server.local_addr();
    let serving = runtime.spawn(server.serve(async {
        let _ = stopped.await;
    }));

    say(format!("requests, each route {requests} times, while a picture of {size}x{size} is made:"))?;
    let (mut idle, mut busy) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let share = requests.div_ceil(TURNS);
    for _ in 0..TURNS {
        let mut activity = router.activity();
        runtime.block_on(activity.wait_for(|jobs| *jobs == 0)).map_err(Failure::failed)?;
        add(&mut idle, ask(address, share)?);
        add(&mut busy, while_busy(&router, size, || ask(address, share))??);
    }
    for (route, (idle, busy)) in ROUTES.iter().zip(idle.iter().zip(&busy)) {
        say(format!("  {route:<10} idle {}", shares(idle)))?;
        say(format!("  {route:<10} busy {}", shares(busy)))?;
    }
    router.shutdown();
    let _ = stop.send(());
    runtime.block_on(serving).map_err(Failure::failed)?;
    engine.join().map_err(Failure::failed)
}

fn add(to: &mut [Vec<Duration>; 2], times: [Vec<Duration>; 2]) {
    for (to, times) in to.iter_mut().zip(times) {
        to.extend(times);
    }
}

/// Runs `measure` while the queue is never empty. Its jobs are cancelled at the end.
fn while_busy<T>(router: &JobRouter, size: u32, measure: impl FnOnce() -> T) -> Result<T, Failure> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let submitting = scope.spawn(|| {
            let mut jobs: Vec<JobId> = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let common = Common {
                    prompt: "a photograph of a lighthouse on a cliff at dusk".into(),
                    width: Some(size),
                    height: Some(size),
                    steps: Some(STEPS),
                    ..Common::default()
                };
                match router.submit(Operation::ImageGeneration(ImageGeneration { common })) {
                    Ok(accepted) => jobs.push(accepted.job_id),
                    Err(SubmitError::QueueFull { .. }) => std::thread::sleep(Duration::from_millis(50)),
                    Err(error) => return Err(Failure::failed(error)),
                }
            }
            for job in &jobs {
                // Those that are over need not be cancelled.
                let _ = router.cancel(job);
            }
            Ok(())
        });
        // The first job encodes its prompt before its steps.
        std::thread::sleep(Duration::from_millis(500));
        let measured = measure();
        done.store(true, Ordering::Relaxed);
        match submitting.join() {
            Ok(submitted) => submitted.map(|()| measured),
            Err(_) => Err(Failure::failed("the thread that submits jobs panicked")),
        }
    })
}

/// Asks the routes in turn on one connection; the times of each route.
fn ask(address: SocketAddr, requests: usize) -> Result<[Vec<Duration>; 2], Failure> {
    let stream = TcpStream::connect(address).map_err(Failure::failed)?;
    stream.set_nodelay(true).map_err(Failure::failed)?;
    let mut answers = BufReader::new(stream.try_clone().map_err(Failure::failed)?);
    let mut stream = stream;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..requests {
        for (route, times) in ROUTES.iter().zip(&mut times) {
            let begun = Instant::now();
            write!(stream, "GET {route} HTTP/1.1\r\nhost: {address}\r\n\r\n").map_err(Failure::failed)?;
            answer(&mut answers).map_err(Failure::failed)?;
            times.push(begun.elapsed());
            std::thread::sleep(PAUSE);
        }
    }
    Ok(times)
}

/// Reads one answer with a known length.
fn answer(from: &mut impl BufRead) -> std::io::Result<()> {
    let (mut length, mut line) = (0, String::new());
    loop {
        line.clear();
        if from.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(|_| std::io::ErrorKind::InvalidData)?;
        }
        if line.is_empty() {
            break;
        }
    }
    std::io::copy(&mut from.take(length), &mut std::io::sink()).map(drop)
}

/// Median, 99th percentile and the longest.
fn shares(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at =
        |share: usize| sorted.get(sorted.len() * share / 100).or(sorted.last()).copied().unwrap_or_default();
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let (median, p99, most) = (millis(at(50)), millis(at(99)), millis(at(100)));
    format!("median {median:7.2} ms, 99 % {p99:7.2} ms, most {most:7.2} ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_off_sorted_times() {
        let times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(shares(&times), "median  101.00 ms, 99 %  199.00 ms, most  200.00 ms");
    }

    #[test]
    fn an_answer_is_read_to_its_end_and_no_further() {
        let mut from = &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1"[..];
        answer(&mut from).unwrap();
        assert_eq!(from, b"HTTP/1.1");
        assert!(answer(&mut &b"HTTP/1.1 200 OK\r\n"[..]).is_err(), "it is cut");
    }
}
