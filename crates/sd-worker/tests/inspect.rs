//! `sd-worker inspect` where a picture was made with files that it cannot carry: placeholders stand for them, and with the
//! files in their places the command makes the same picture.

#![allow(clippy::unwrap_used)]

#[path = "../../sd-models/tests/support/controlnet.rs"]
mod nets;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn fixtures(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).join(path).canonicalize().unwrap()
}

fn sd_worker<S: AsRef<std::ffi::OsStr>>(arguments: &[S], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sd-worker")).args(arguments).current_dir(folder).output().unwrap()
}

fn done(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Makes `a.png`, makes it again from what it tells, and expects the same bytes.
fn is_made_again(arguments: &[&str], places: &[(&str, &str)], folder: &Path) -> String {
    let model = fixtures("sd15/model").display().to_string();
    let fixed = ["--steps=2", "--seed=5", "--output=a.png", "--model", &model];
    done(sd_worker(&[arguments, &fixed].concat(), folder));
    let line = done(sd_worker(&["inspect", "a.png"], folder));
    let filled = places.iter().fold(line.clone(), |line, (place, file)| line.replace(place, file));
    let again = filled.split_whitespace().skip(1).map(|argument| argument.trim_matches('\'').to_owned());
    done(sd_worker(&again.collect::<Vec<_>>(), folder));
    let bytes = |name: &str| std::fs::read(folder.join(name)).unwrap();
    assert!(bytes("a.png") == bytes("a-again.png"), "another picture: {filled}");
    line
}

#[test]
fn controls_are_in_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    nets::folder(&fixtures("sd15"), "net", &folder.join("net"));
    let square = |x, y| image::Rgb(if x / 20 == y / 20 { [230, 40, 40] } else { [30, 120, 60] });
    image::RgbImage::from_fn(64, 64, square).save(folder.join("square.png")).unwrap();
    let arguments = [
        "generate",
        "circle",
        "--controlnet=edges=net",
        "--control=edges=square.png,preprocess=canny,strength=0.75,end=0.5",
        "--control=edges=square.png",
    ];
    let places =
        [("CONTROL_IMAGE_1", "square.png"), ("CONTROL_IMAGE_2", "square.png"), ("EDGES_CONTROLNET", "net")];
    let line = is_made_again(&arguments, &places, folder);
    for part in [
        "--controlnet=edges=EDGES_CONTROLNET",
        "--control=edges=CONTROL_IMAGE_1,strength=0.75,end=0.5,preprocess=canny",
        "--control=edges=CONTROL_IMAGE_2 ",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}

#[test]
fn a_tiny_autoencoder_is_in_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let tiny = fixtures("taesd/model").display().to_string();
    let own = ["generate", "circle"];
    is_made_again(&own, &[], folder);
    let plain = std::fs::read(folder.join("a.png")).unwrap();
    let line = is_made_again(
        &["generate", "circle", "--vae", &tiny],
        &[("--vae=TAESD", &format!("--vae={tiny}"))],
        folder,
    );
    assert!(line.contains("--vae=TAESD"), "{line}");
    assert!(plain != std::fs::read(folder.join("a.png")).unwrap(), "the tiny autoencoder draws otherwise");
}
