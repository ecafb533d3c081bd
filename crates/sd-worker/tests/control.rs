//! ControlNets as a user meets them: on the command line and over HTTP.

#![allow(clippy::unwrap_used)]

#[path = "../../sd-models/tests/support/controlnet.rs"]
mod nets;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn family() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/sd15")).canonicalize().unwrap()
}

/// A folder with a net in both forms and a picture of a square.
fn prepared() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    nets::folder(&family(), "net", &folder.path().join("net"));
    let names = nets::original_names(&family());
    nets::file(&family(), "net-2", &folder.path().join("net-2.safetensors"), |name| names[name].clone());
    let square =
        |x, y| if (16..48).contains(&x) && (20..44).contains(&y) { [230, 40, 40] } else { [30, 120, 60] };
    image::RgbImage::from_fn(64, 64, |x, y| image::Rgb(square(x, y)))
        .save(folder.path().join("square.png"))
        .unwrap();
    folder
}

fn generate(folder: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sd-worker"))
        .args(["generate", "a red circle", "--steps=2", "--seed=5", "--no-metadata", "--output=out.png"])
        .arg("--model")
        .arg(family().join("model"))
        .args(more)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn control_pictures_steer_the_picture() {
    let folder = prepared();
    let draw = |more: &[&str]| {
        let output = generate(folder.path(), more);
        assert!(output.status.success(), "{}", text(&output.stderr));
        std::fs::read(folder.path().join("out.png")).unwrap()
    };
    let loaded = ["--controlnet=edges=net", "--controlnet=soft=net-2.safetensors"];
    let with = |more: &[&str]| draw(&[&loaded[..], more].concat());
    let plain = draw(&[]);
    assert_eq!(with(&[]), plain, "a net without a picture changes nothing");
    assert_eq!(with(&["--control=edges=square.png,strength=0"]), plain);
    let mut seen = vec![plain];
    for more in [
        &["--control=edges=square.png"][..],
        &["--control=edges=square.png,preprocess=canny"],
        &["--control=edges=square.png,preprocess=canny", "--guess-mode"],
        &["--control=edges=square.png,end=0.5"],
        &["--control=edges=square.png", "--control=soft=square.png,preprocess=lineart,strength=0.5"],
    ] {
        let picture = with(more);
        assert!(!seen.contains(&picture), "{more:?} changes something");
        seen.push(picture);
    }
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let folder = prepared();
    for (arguments, parts) in [
        ("--control=edges=square.png", "control|beyond model"),
        ("--controlnet=edges=net --control=pose=square.png", "`pose`|edges"),
        ("--controlnet=edges=net --control=edges=none.png", "none.png"),
        ("--controlnet=edges=net --control=edges=square.png,preprocess=cany", "cany|lineart"),
        ("--controlnet=edges=nowhere", "nowhere|no such file or folder"),
        ("--controlnet=edges=net --controlnet=edges=net", "edges|two of this name"),
        ("--controlnet=edges=net --guess-mode", "guess_mode"),
        ("--controlnet=net", "NAME=PATH"),
    ] {
        let output = generate(folder.path(), &arguments.split(' ').collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let told = text(&output.stderr);
        assert!(parts.split('|').all(|part| told.contains(part)), "{arguments:?}: {told}");
    }
}
