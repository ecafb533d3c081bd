//! LoRAs on the command line.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn fixtures(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).join(path)
}

fn generate(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sd-worker"))
        .args(["generate", "a red circle", "--steps=2", "--seed=5", "--no-metadata", "--output=a.png"])
        .arg("--model")
        .arg(fixtures("sd15/model"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

#[test]
fn files_and_names_give_the_same_picture() {
    let folder = tempfile::tempdir().unwrap();
    let picture = |arguments: &[&str]| {
        let output = generate(arguments, folder.path());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read(folder.path().join("a.png")).unwrap()
    };
    let loras = fixtures("sd15/loras");
    let loras = loras.to_str().unwrap();
    let plain = picture(&[]);
    let by_file = picture(&[
        "--lora",
        &format!("{loras}/kohya.safetensors:0.8"),
        "--lora",
        &format!("{loras}/peft.safetensors:-0.5"),
    ]);
    assert_ne!(by_file, plain);
    assert_eq!(picture(&["--lora-dir", loras, "--lora", "kohya:0.8,peft:-0.5"]), by_file);
    assert_ne!(picture(&["--lora-dir", loras, "--lora", "kohya:0.8"]), by_file);
    assert_eq!(picture(&["--lora-dir", loras, "--lora", "kohya:0"]), plain);
}

#[test]
fn what_cannot_be_applied_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("old.ckpt"), "x").unwrap();
    let loras = fixtures("sd15/loras");
    let other = fixtures("sdxl/loras/diffusers.safetensors");
    for (arguments, wanted) in [
        (vec!["--lora", "ink"], "--lora-dir"),
        (vec!["--lora-dir", loras.to_str().unwrap(), "--lora", "ink"], "ink.safetensors"),
        (vec!["--lora", "none.safetensors"], "none.safetensors"),
        (vec!["--lora", "old.ckpt"], "pickle"),
        (vec!["--lora", other.to_str().unwrap()], "SDXL"),
        (vec!["--lora", "kohya:11"], "outside"),
    ] {
        let output = generate(&arguments, folder.path());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(wanted), "{wanted} is not in {told}");
        assert!(!folder.path().join("a.png").exists());
    }
}
