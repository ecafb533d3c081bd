//! Nothing that was accepted is lost: the worker is killed at random moments, again and again, while clients submit and
//! watch; in the end everything is counted.
//!
//! `SD_CRASH_SEED` repeats the moments of a run, `SD_CRASH_KILLS` makes it longer.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

#[path = "support/crash_client.rs"]
mod client;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use serde_json::{Value, json};

use client::{Answer, Client, start};

const KILLS: u64 = 50;
/// How long anything may take once nobody kills any more.
const PATIENCE: Duration = Duration::from_secs(120);
const SUBMITTERS: usize = 2;

/// The requests that are sent over and over, and the file that each gives.
struct Requests(Vec<(Value, Vec<u8>)>);

/// SplitMix64: <https://prng.di.unimi.it/splitmix64.c>
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What clients know of one job.
#[derive(Default)]
struct Seen {
    /// Which request it is of.
    request: usize,
    /// Every event that was told, by its id.
    events: BTreeMap<u64, String>,
    done: bool,
}

/// What all threads share.
struct World {
    client: Client,
    requests: Requests,
    jobs: Mutex<BTreeMap<String, Seen>>,
    next: AtomicUsize,
    stop: AtomicBool,
    /// Answers to a repeated key that named the job of the first time.
    repeated: AtomicUsize,
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs every request once on a worker that nobody disturbs.
fn undisturbed() -> Requests {
    let mut child = start(":memory:", &[]);
    let client = Client::default();
    client.moved(&child.address);
    let picture = |request: &Value| {
        let accepted = client.patiently("POST", "/v1/jobs", "", &request.to_string());
        assert_eq!(accepted.status, 202, "{}", accepted.text());
        let job = format!("/v1/jobs/{}", accepted.json()["job_id"].as_str().unwrap());
        let story = client.patiently("GET", &format!("{job}/stream"), "", "").text();
        assert!(story.contains("\n\ndata: [DONE]\n\n"), "{story}");
        client.patiently("GET", &format!("{job}/images/0"), "", "").body
    };
    let mut requests = Vec::new();
    for (n, prompt) in ["a red circle", "a blue square on sand", "a green star"].iter().enumerate() {
        let request = json!({"operation": "image_generation", "prompt": prompt, "steps": 4 + 5 * n, "seed": n,
            "sampler": "euler_a"});
        let file = picture(&request);
        let init_image = base64::engine::general_purpose::STANDARD.encode(&file);
        let transform = json!({"operation": "image_transform", "prompt": "a yellow circle", "steps": 12,
            "strength": 0.7, "seed": 100 + n, "init_image": init_image});
        let transformed = picture(&transform);
        requests.extend([(request, file), (transform, transformed)]);
    }
    child.kill();
    Requests(requests)
}

/// Sends one request after the other, each until it is accepted: an answer that was lost is asked for again.
fn submit(world: &Arc<World>) {
    while !world.stop.load(Ordering::Relaxed) {
        let n = world.next.fetch_add(1, Ordering::Relaxed);
        let request = n % world.requests.0.len();
        let (body, key) = (world.requests.0[request].0.to_string(), format!("Idempotency-Key: n-{n}\r\n"));
        let id = loop {
            match world.client.send("POST", "/v1/jobs", &key, &body) {
                Some(answer) if answer.status == 202 => {
                    let repeated = usize::from(answer.head.contains("idempotent-replayed: true"));
                    world.repeated.fetch_add(repeated, Ordering::Relaxed);
                    break answer.json()["job_id"].as_str().unwrap().to_owned();
                }
                Some(answer) => assert!([429, 503].contains(&answer.status), "{}", answer.text()),
                None => {}
            }
            thread::sleep(Duration::from_millis(15));
        };
        let seen = Seen { request, ..Seen::default() };
        assert!(world.jobs.lock().unwrap().insert(id.clone(), seen).is_none(), "{id} was given out twice");
        let world = Arc::clone(world);
        thread::spawn(move || watch(&world, &id));
    }
}

/// Follows a job to its end, resuming wherever the connection broke.
fn watch(world: &World, id: &str) {
    let mut last = 0;
    let mut from_the_start = false;
    loop {
        // Every other time as a client that remembers nothing.
        from_the_start = !from_the_start;
        let after = if from_the_start { 0 } else { last };
        let told = world.client.events(&format!("/v1/jobs/{id}/stream"), after, |event, data| {
            let mut jobs = world.jobs.lock().unwrap();
            let seen = jobs.get_mut(id).unwrap();
            match event {
                Some(event) => {
                    last = last.max(event);
                    let known = seen.events.entry(event).or_insert_with(|| data.to_owned());
                    assert_eq!(known, data, "event {event} of {id} is told in two ways");
                }
                None => seen.done |= data == "[DONE]",
            }
        });
        if world.jobs.lock().unwrap()[id].done {
            return;
        }
        assert_ne!(told, Some(404), "{id} is lost");
        thread::sleep(Duration::from_millis(20));
    }
}

fn count(events: &BTreeMap<u64, String>, kind: &str) -> usize {
    let kind = format!("{{\"type\":\"{kind}\"");
    events.values().filter(|data| data.starts_with(&kind)).count()
}

/// All jobs that the worker knows, page by page.
fn listed(client: &Client) -> Vec<Value> {
    let mut jobs = Vec::new();
    let mut path = "/v1/jobs?limit=7".to_owned();
    loop {
        let page = client.patiently("GET", &path, "", "").json();
        jobs.extend(page["jobs"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/jobs?limit=7&cursor={cursor}"),
            None => return jobs,
        }
    }
}

#[test]
fn nothing_that_was_accepted_is_lost() {
    let seed = variable("SD_CRASH_SEED").unwrap_or_else(|| {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64
    });
    println!("SD_CRASH_SEED={seed}");
    let mut random = Random(seed);
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().to_str().unwrap();
    let world = Arc::new(World {
        client: Client::default(),
        requests: undisturbed(),
        jobs: Mutex::default(),
        next: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        repeated: AtomicUsize::new(0),
    });
    let submitters: Vec<_> = (0..SUBMITTERS)
        .map(|_| {
            let world = Arc::clone(&world);
            thread::spawn(move || submit(&world))
        })
        .collect();

    let kills = variable("SD_CRASH_KILLS").unwrap_or(KILLS);
    for kill in 0..kills {
        let mut worker = start(directory, &["--queue-capacity", "4"]);
        world.client.moved(&worker.address);
        if kill % 4 != 0 {
            world.client.ready();
        }
        // Now and then while it starts, otherwise while it works.
        thread::sleep(Duration::from_micros(random.below(400_000)));
        worker.kill();
    }

    world.stop.store(true, Ordering::Relaxed);
    let mut worker = start(directory, &["--queue-capacity", "4"]);
    world.client.moved(&worker.address);
    for submitter in submitters {
        submitter.join().expect("a submitter found something wrong");
    }
    let begun = Instant::now();
    while world.jobs.lock().unwrap().values().any(|seen| !seen.done) {
        assert!(begun.elapsed() < PATIENCE, "jobs that were accepted never end");
        thread::sleep(Duration::from_millis(50));
    }

    let jobs = world.jobs.lock().unwrap();
    let listed = listed(&world.client);
    let known: BTreeSet<&str> = listed.iter().map(|job| job["job_id"].as_str().unwrap()).collect();
    assert_eq!(known.len(), listed.len(), "a job is listed twice");
    assert_eq!(known, jobs.keys().map(String::as_str).collect(), "accepted and remembered jobs differ");
    let (mut runs, mut interrupted) = (0, 0);
    for (id, seen) in &*jobs {
        let path = format!("/v1/jobs/{id}");
        let view = world.client.patiently("GET", &path, "", "").json();
        assert_eq!(view["state"], "completed", "{view}");
        let Answer { body, .. } = world.client.patiently("GET", &format!("{path}/images/0"), "", "");
        assert!(body == world.requests.0[seen.request].1, "{id} gave another picture than undisturbed");

        let mut replayed = BTreeMap::new();
        world.client.events(&format!("{path}/stream"), 0, |event, data| {
            if let Some(event) = event {
                assert!(replayed.insert(event, data.to_owned()).is_none(), "{id} tells event {event} twice");
            }
        });
        for (event, data) in &replayed {
            let known = seen.events.get(event).unwrap_or(data);
            assert_eq!(known, data, "event {event} of {id} is told in two ways");
        }
        assert_eq!((count(&seen.events, "complete"), count(&replayed, "complete")), (1, 1), "{id}");
        let again = replayed.values().filter(|data| data.contains("it is run again from its seed")).count();
        let started = count(&replayed, "started");
        assert_eq!(started, again + 1, "{id}: {replayed:?}");
        runs += started;
        interrupted += usize::from(again > 0);
    }
    println!(
        "{kills} kills: {} jobs accepted, all completed once; {interrupted} were interrupted, {runs} runs in all; \
         {} answers were asked for again",
        jobs.len(),
        world.repeated.load(Ordering::Relaxed)
    );
    assert!(interrupted > 0, "no kill hit a running job: the test showed nothing");
    worker.kill();
}
