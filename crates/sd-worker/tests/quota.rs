//! A data directory whose user has used up the quota of the disk: the real worker, to which the C library says so.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used)]

#[path = "support/logged.rs"]
mod logged;
#[path = "support/preload.rs"]
mod preload;

use std::path::Path;

use logged::{Answer, Service};
use serde_json::json;

#[test]
fn a_used_up_quota_is_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (library, mark, data) =
        (preload::library("quota", folder.path()), folder.path().join("used-up"), folder.path().join("data"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (library, mark_text, data) = (text(&library), text(&mark), text(&data));
    let variables = [("LD_PRELOAD", &*library), ("QUOTA_FOLDER", &*data), ("QUOTA_USED_UP", &*mark_text)];
    let service = Service::start(&["--data-dir", &data], &variables).ready();
    let operation = json!({"operation": "image_generation", "prompt": "a star", "steps": 1, "seed": 1});
    let send = || -> Answer {
        service.send(
            "POST",
            "/v1/jobs",
            "content-type: application/json\r\n",
            operation.to_string().as_bytes(),
        )
    };
    let early = service.submit("", &operation);
    service.send("GET", &format!("{early}/stream"), "", b"");

    std::fs::write(&mark, "").unwrap();
    let refused = send();
    assert_eq!(refused.status, 507, "{}", refused.text());
    assert_eq!(refused.json()["error"]["code"], "storage_full");
    assert_eq!(
        service.send("GET", &format!("{early}/images/0"), "", b"").status,
        200,
        "what is there can be read"
    );

    std::fs::remove_file(&mark).unwrap();
    let late = service.submit("", &operation);
    let story = service.send("GET", &format!("{late}/stream"), "", b"").text();
    assert!(story.contains("data: [DONE]"), "{story}");
}
