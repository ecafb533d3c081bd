//! A data directory on a disk that fills up: the real worker, to which the C library says so. How large the files are
//! together decides, as on a disk, where the tests of the store count only the pages of one of them.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used)]

#[path = "support/logged.rs"]
mod logged;
#[path = "support/preload.rs"]
mod preload;

use std::path::{Path, PathBuf};

use logged::{Answer, Service};
use serde_json::{Value, json};

const BYTES: u64 = 2 << 20;
const BLOCK: u64 = 4096;

/// A folder, and the library that keeps it small.
struct Disk {
    folder: tempfile::TempDir,
    library: PathBuf,
}

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let library = preload::library("small_disk", folder.path());
        Self { folder, library }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn start(&self, arguments: &[&str]) -> Service {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let (library, data, bytes) = (text(&self.library), text(&self.data()), BYTES.to_string());
        let variables = [("LD_PRELOAD", &*library), ("SMALL_DISK", &*data), ("SMALL_DISK_BYTES", &*bytes)];
        Service::start(&[&["--data-dir", &data], arguments].concat(), &variables)
    }

    fn taken(&self) -> u64 {
        let files = std::fs::read_dir(self.data()).unwrap();
        // The log of the database may go while they are counted.
        files
            .filter_map(|file| file.unwrap().metadata().ok())
            .map(|file| file.len().div_ceil(BLOCK) * BLOCK)
            .sum()
    }

    /// Somebody else takes all the room that is left.
    fn fill(&self) {
        let left = BYTES.checked_sub(self.taken()).expect("the files are within the disk");
        std::fs::write(self.other(), vec![0; usize::try_from(left).unwrap()]).unwrap();
        assert_eq!(self.taken(), BYTES);
    }

    fn other(&self) -> PathBuf {
        self.data().join("other")
    }
}

/// Eight small pictures, some ten kilobytes each.
fn post(service: &Service) -> Answer {
    let operation = json!({
        "operation": "image_generation", "prompt": "a star", "steps": 1, "num_images": 8, "width": 64, "height": 64,
    });
    let body = operation.to_string();
    service.send("POST", "/v1/jobs", "content-type: application/json\r\n", body.as_bytes())
}

fn address(accepted: &Answer) -> String {
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    format!("/v1/jobs/{}", accepted.json()["job_id"].as_str().unwrap())
}

/// Follows a job to its end.
fn story(service: &Service, job: &str) -> String {
    service.send("GET", &format!("{job}/stream"), "", b"").text()
}

fn is_refused_for_room(answer: &Answer) {
    assert_eq!(answer.status, 507, "{}", answer.text());
    assert_eq!(answer.json()["error"]["code"], "storage_full");
}

/// Submits one job after the other until there is no room. Gives the addresses of those that were taken.
fn submit_until_full(service: &Service) -> Vec<String> {
    let mut jobs = Vec::new();
    while jobs.len() < 100 {
        let answer = post(service);
        if answer.status != 202 {
            is_refused_for_room(&answer);
            return jobs;
        }
        jobs.push(address(&answer));
        let story = story(service, &jobs[jobs.len() - 1]);
        assert!(story.contains("data: [DONE]"), "{story}");
    }
    panic!("the disk never fills");
}

fn listed(service: &Service) -> Vec<String> {
    let list: Value = service.send("GET", "/v1/jobs", "", b"").json();
    let jobs = list["jobs"].as_array().unwrap();
    jobs.iter().map(|job| format!("/v1/jobs/{}", job["job_id"].as_str().unwrap())).collect()
}

#[test]
fn jobs_that_fill_the_disk_make_way_when_they_are_not_kept_any_longer() {
    let disk = Disk::new();
    let service = disk.start(&[]).ready();
    let jobs = submit_until_full(&service);
    assert!(jobs.len() > 2, "{jobs:?}");
    // Nor does it take anything when it is asked again.
    is_refused_for_room(&post(&service));
    disk.fill();
    drop(service);

    // Killed, and started on a disk without a single free block.
    let service = disk.start(&[]).ready();
    assert_eq!(listed(&service), jobs);
    let picture = service.send("GET", &format!("{}/images/0", jobs[0]), "", b"");
    assert!(picture.status == 200 && picture.body.starts_with(b"\x89PNG"), "{}", picture.head);
    is_refused_for_room(&post(&service));
    assert_eq!(service.send("GET", "/health", "", b"").status, 200);
    drop(service);

    // They are older than this. Nobody else has given anything back.
    std::thread::sleep(std::time::Duration::from_millis(10));
    let service = disk.start(&["--keep-age", "10ms"]).ready();
    service.until("taking a job again", || post(&service).status == 202);
    assert!(disk.other().exists());
    service.until("without the old jobs", || listed(&service).iter().all(|job| !jobs.contains(job)));
}

#[test]
fn a_small_disk_suffices_for_the_jobs_that_are_kept() {
    let disk = Disk::new();
    let service = disk.start(&["--keep-jobs", "2"]).ready();
    for n in 0..16 {
        let answer = post(&service);
        assert_eq!(answer.status, 202, "job {n}: {}; {} bytes taken", answer.text(), disk.taken());
        let story = story(&service, &address(&answer));
        assert!(story.contains("data: [DONE]") && !story.contains("not written down"), "job {n}: {story}");
        assert!(listed(&service).len() <= 2);
    }
}

#[test]
fn a_job_that_waits_outlives_a_full_disk() {
    let disk = Disk::new();
    let service = disk.start(&[]).ready();
    let jobs: Vec<String> = (0..3).map(|_| address(&post(&service))).collect();
    drop(service);
    disk.fill();

    let service = disk.start(&[]).ready();
    assert_eq!(listed(&service), jobs);
    assert_eq!(service.send("GET", "/health", "", b"").status, 200);
    std::fs::remove_file(disk.other()).unwrap();
    for job in &jobs {
        let story = story(&service, job);
        assert!(story.contains("data: [DONE]"), "{story}");
    }
    service.until("taking a job again", || post(&service).status == 202);
}
