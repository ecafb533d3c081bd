//! The OpenAPI document: served, committed, and true.

use std::path::Path;

use sd_http::{ApiConfig, Faces};
use serde_json::Value;

use crate::support::{Setup, Worker};

/// Made anew by `cargo xtask openapi`.
const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");

#[test]
fn the_committed_document_is_the_one_that_is_served() {
    let document = sd_http::openapi::document(Faces::default());
    let text = format!("{}\n", serde_json::to_string_pretty(&document).unwrap());
    if std::env::var_os("SD_WRITE_OPENAPI").is_some() {
        std::fs::write(COMMITTED, &text).unwrap();
    }
    let committed = std::fs::read_to_string(Path::new(COMMITTED)).unwrap_or_default();
    assert!(committed == text, "docs/openapi.json is not what the code says: run `cargo xtask openapi`");
}

#[tokio::test]
async fn it_is_served_to_everybody() {
    let worker = Worker::start().await;
    let answer = worker.get("/openapi.json").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.json(), sd_http::openapi::document(Faces::default()));
}

#[tokio::test]
async fn it_leaves_out_what_is_switched_off() {
    let faces = Faces { openai: false, a1111: false };
    let api = ApiConfig { faces, ..ApiConfig::default() };
    let worker = Worker::with(Setup { api, ..Setup::default() }).await;
    let document = worker.get("/openapi.json").await.json();
    assert_eq!(document, sd_http::openapi::document(faces));
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert!(
        paths.iter().all(|path| !path.starts_with("/sdapi") && !path.starts_with("/v1/images")),
        "{paths:?}"
    );
}

#[test]
fn every_reference_leads_somewhere_and_names_are_unique() {
    let document = sd_http::openapi::document(Faces::default());
    let mut references = Vec::new();
    collect(&document, "$ref", &mut references);
    assert!(references.len() > 20);
    for reference in references {
        let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
    let mut names = Vec::new();
    collect(&document["paths"], "operationId", &mut names);
    let mut names: Vec<&str> = names.iter().filter_map(|name| name.as_str()).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    // Links name an operation again.
    assert!(all - names.len() <= 2, "{names:?}");
}

fn collect<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get(key));
            object.values().for_each(|value| collect(value, key, found));
        }
        Value::Array(entries) => entries.iter().for_each(|value| collect(value, key, found)),
        _ => {}
    }
}
