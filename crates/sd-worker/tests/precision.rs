//! What bf16 costs: whole pictures of every fixture family and of the demonstration model in bf16 against our own f32,
//! with weights that are only stored in bf16 and with products of bf16 operands as AMX makes them.
//!
//! Each picture is made by a process of its own, because a process keeps the kernels that it starts with. Where there
//! is no AMX its tiles are computed by vector instructions, with the same sums.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::process::Command;

use image::RgbImage;

/// The law of the reference document `docs/parity.md`, in decibels.
const LEAST_PSNR: f64 = 30.0;

struct Case {
    model: PathBuf,
    prompt: &'static str,
    /// Beside the prompt and the model's own settings.
    arguments: &'static [&'static str],
}

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let family = |name: &str| Case {
        model: root.join("fixtures").join(name).join("model"),
        prompt: "a cat on a red chair",
        arguments: &["--steps", "4"],
    };
    let demo = |prompt, seed: &'static [&'static str]| Case {
        model: root.join("models/demo"),
        prompt,
        arguments: seed,
    };
    vec![
        family("sd15"),
        family("sd21"),
        family("sdxl"),
        demo("a red circle on green grass", &["--seed", "7"]),
        demo("a blue star on snow", &["--seed", "3"]),
        demo("a large yellow square on lava", &["--seed", "11"]),
    ]
}

fn draw(case: &Case, dtype: &str, kernels: Option<&str>) -> RgbImage {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("picture.png");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sd-worker"));
    command.args(["generate", case.prompt, "--dtype", dtype, "--model"]).arg(&case.model);
    command.args(case.arguments).arg("--output").arg(&output);
    if !case.arguments.contains(&"--seed") {
        command.args(["--seed", "5"]);
    }
    match kernels {
        Some(kernels) => command.env("SD_KERNELS", kernels),
        None => command.env_remove("SD_KERNELS"),
    };
    let run = command.output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    image::open(&output).unwrap().into_rgb8()
}

/// Peak signal-to-noise ratio in decibels; infinite for equal pictures.
fn psnr(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let squares: f64 =
        a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    10.0 * (255.0 * 255.0 * a.as_raw().len() as f64 / squares).log10()
}

fn check(kernels: Option<&str>) {
    let mut least = f64::INFINITY;
    for case in cases() {
        let exact = draw(&case, "f32", None);
        let spread = exact.as_raw().iter().max().unwrap() - exact.as_raw().iter().min().unwrap();
        assert!(spread > 32, "{}: too flat a picture to compare", case.model.display());
        let psnr = psnr(&exact, &draw(&case, "bf16", kernels));
        println!("{}: `{}` {psnr:.1} dB", case.model.display(), case.prompt);
        least = least.min(psnr);
    }
    assert!(least > LEAST_PSNR, "{least:.1} dB");
}

#[test]
fn pictures_hold_when_weights_are_bf16() {
    check(None);
}

#[test]
fn pictures_hold_when_operands_are_bf16() {
    check(Some("amx-emulated"));
}
