//! The document, the router and the guides know the same routes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use http::Method;

use super::document;
use crate::a1111;
use crate::faces::Faces;
use crate::route::Route;

/// Method and path of every operation in a document.
fn documented(faces: Faces) -> BTreeSet<(String, String)> {
    let document = document(faces);
    let mut routes = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            routes.insert((method.to_uppercase(), path.clone()));
        }
    }
    routes
}

/// A path that fits a pattern of the document.
fn filled(pattern: &str) -> String {
    pattern.replace("{id}", "some").replace("{index}", "0")
}

#[test]
fn the_document_has_the_routes_and_methods_of_the_router() {
    let routes = documented(Faces::default());
    for (method, pattern) in &routes {
        let path = filled(pattern);
        let route = Route::of(&path).unwrap_or_else(|| panic!("the router does not know {pattern}"));
        assert!(route.allows(&method.parse::<Method>().unwrap()), "{method} {pattern}");
        for allowed in route.allowed().split(", ").filter(|allowed| *allowed != "HEAD") {
            assert!(routes.contains(&(allowed.to_owned(), pattern.clone())), "{allowed} {pattern}");
        }
    }
    let has = |path: &str| routes.iter().any(|(_, pattern)| pattern == path);
    for (name, _) in a1111::CALLS {
        assert!(has(&format!("/sdapi/v1/{name}")), "{name}");
    }
    for call in ["generations", "edits", "variations"] {
        assert!(has(&format!("/v1/images/{call}")), "{call}");
    }
    for route in [
        Route::Jobs,
        Route::Job(""),
        Route::JobStream(""),
        Route::JobImage("", 0),
        Route::Models,
        Route::Model(""),
        Route::ModelLoad(""),
        Route::ModelUnload(""),
        Route::Info,
        Route::Health,
        Route::Ready,
        Route::OpenApi,
        Route::Metrics,
    ] {
        assert!(has(route.pattern()), "{route:?}");
    }
}

#[test]
fn interfaces_that_are_switched_off_are_in_no_document() {
    let all = documented(Faces::default()).len();
    let own = documented(Faces { openai: false, a1111: false });
    assert!(own.iter().all(|(_, path)| !path.contains("images/") || path.contains("/jobs/")), "{own:?}");
    assert!(own.iter().all(|(_, path)| !path.starts_with("/sdapi")), "{own:?}");
    let openai = documented(Faces { openai: true, a1111: false }).len();
    let a1111 = documented(Faces { openai: false, a1111: true }).len();
    assert_eq!((openai - own.len()) + (a1111 - own.len()), all - own.len());
    let models = |faces| document(faces)["paths"]["/v1/models"]["get"]["responses"]["200"].to_string();
    assert!(models(Faces::default()).contains("OpenAiModelList"));
    assert!(!models(Faces { openai: false, a1111: true }).contains("OpenAi"));
}

/// The guides that tell of routes.
const GUIDES: [&str; 3] = ["http-api.md", "openai.md", "a1111.md"];

#[test]
fn every_route_has_its_curl_in_the_guides() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let mut calls = BTreeSet::new();
    for guide in GUIDES {
        let text = fs::read_to_string(docs.join(guide)).unwrap();
        for line in text.replace("\\\n", " ").lines().filter(|line| line.trim_start().starts_with("curl ")) {
            calls.insert(call(line).unwrap_or_else(|| panic!("{guide}: {line}")));
        }
    }
    let fits = |pattern: &str, path: &str| {
        let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
        let same =
            |(wanted, given): (&&str, &&str)| wanted == given || wanted.starts_with('{') && !given.is_empty();
        pattern.len() == path.len() && pattern.iter().zip(&path).all(same)
    };
    let routes = documented(Faces::default());
    for (method, path) in &calls {
        let known = routes.iter().any(|(known, pattern)| known == method && fits(pattern, path));
        assert!(known, "the guides call what is not there: {method} {path}");
    }
    let missing: Vec<_> = routes
        .iter()
        .filter(|(method, pattern)| !calls.iter().any(|(used, path)| used == method && fits(pattern, path)))
        .collect();
    assert!(missing.is_empty(), "no guide shows how to call {missing:?}");
}

/// Method and path of what a line with `curl` calls.
fn call(line: &str) -> Option<(String, String)> {
    let mut words = line.split_whitespace().map(|word| word.trim_matches(['"', '\'']));
    let mut method = "GET".to_owned();
    let mut path = None;
    while let Some(word) = words.next() {
        match word {
            "-X" => method = words.next()?.to_owned(),
            "-d" | "-F" | "--json" | "--data" if method == "GET" => method = "POST".to_owned(),
            word if word.starts_with("http") => {
                let rest = word.split_once("://")?.1;
                let rest = &rest[rest.find('/')?..];
                path = Some(rest.split(['?', '"', '\'']).next()?.to_owned());
            }
            _ => {}
        }
    }
    Some((method, path?))
}
