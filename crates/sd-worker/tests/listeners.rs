//! Two hundred listeners of one job, half of whom do not read.

#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

#[path = "support/logged.rs"]
mod logged;

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use logged::{Answer, Service};
use serde_json::json;
use socket2::{Domain, SockAddr, Socket, Type};

const READING: usize = 100;
const SILENT: usize = 100;
/// What all of them together may add to the worker's memory.
const ALLOWED_KIB: u64 = 16 << 10;

fn status(service: &Service, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", service.child.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_matches([':', ' ', '\t']).split(' ').next().unwrap().parse().unwrap()
}

fn open_files(service: &Service) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", service.child.id())).unwrap().count()
}

/// Asks for the story and never reads it; the kernel takes as little of it as it can be told to.
fn silent(service: &Service, job: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&SockAddr::from(service.address.parse::<std::net::SocketAddr>().unwrap())).unwrap();
    let mut stream = TcpStream::from(socket);
    write!(stream, "GET {job}/stream HTTP/1.1\r\nhost: {}\r\n\r\n", service.address).unwrap();
    stream
}

/// The events of a story, without what keeps the connection alive.
fn data(story: &Answer) -> Vec<String> {
    story.text().lines().filter(|line| line.starts_with("data: ")).map(str::to_owned).collect()
}

#[test]
fn two_hundred_listeners_cost_little_and_those_who_do_not_read_are_dropped() {
    let service = Service::start(&["--write-timeout", "6"], &[]).ready();
    let large = json!({"operation": "image_generation", "prompt": "a star", "seed": 3, "width": 512, "height": 512,
        "steps": 2, "preview": {"every": 1, "max_side": 512}});
    // The first jobs take what the model needs for this size, and their stories. What stays behind one differs: the most counts.
    let left_behind = || {
        let first = service.submit("", &large);
        let story = service.send("GET", &format!("{first}/stream"), "", b"");
        assert!(story.text().contains("data: [DONE]\n\n"));
        status(&service, "VmRSS")
    };
    let before = (0..12).map(|_| left_behind()).max().unwrap();
    let files_before = open_files(&service);

    let job = service.submit("", &large);
    let mut sleeping: Vec<TcpStream> = (0..SILENT).map(|_| silent(&service, &job)).collect();
    let path = format!("{job}/stream");
    let stories: Vec<Answer> = std::thread::scope(|scope| {
        let (service, path) = (&service, &path);
        let readers: Vec<_> =
            (0..READING).map(|_| scope.spawn(move || service.send("GET", path, "", b""))).collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    let during = status(&service, "VmRSS");
    let length = stories[0].body.len();
    println!(
        "a story of {length} bytes, {READING} who read it and {SILENT} who do not: {} KiB more than {before} KiB",
        during.saturating_sub(before)
    );
    let told: Vec<Vec<String>> = stories.iter().map(data).collect();
    assert!(told.iter().all(|story| *story == told[0]), "all get the same");
    assert_eq!(told[0].last().unwrap(), "data: [DONE]");
    // Copies of their own would take more than is allowed.
    assert!(length * SILENT / 1024 > ALLOWED_KIB as usize, "the story is too short to tell: {length} bytes");
    assert!(during.saturating_sub(before) < ALLOWED_KIB, "{before} KiB became {during} KiB");
    assert_eq!(service.send("GET", "/health", "", b"").status, 200);

    // No more than the two threads' idle sockets may be left of them.
    service.until("rid of those who do not read", || open_files(&service) <= files_before + 2);
    for stream in &mut sleeping {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    let mut rest = Vec::new();
    let _reset = std::io::Read::read_to_end(&mut sleeping[0], &mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains("[DONE]"), "it was cut off in the middle");
}
