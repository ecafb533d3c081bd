//! `sd-worker inspect` where a picture was made with files that it cannot carry: placeholders stand for them, and with the
//! files in their places the command makes the same picture.

#![allow(clippy::unwrap_used)]

#[path = "../../sd-models/tests/support/controlnet.rs"]
mod nets;

#[path = "support/service.rs"]
mod service;
#[path = "../../sd-models/tests/support/spelt.rs"]
mod spelt;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use service::Service;

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

/// Makes `a.png`, makes it again from what it tells with these files in their places, and expects the same bytes. What
/// `inspect` printed.
fn is_made_again(arguments: &[&str], places: &[(&str, &str)], folder: &Path) -> String {
    is_made_again_by(&fixtures("sd15/model"), arguments, places, folder)
}

fn is_made_again_by(model: &Path, arguments: &[&str], places: &[(&str, &str)], folder: &Path) -> String {
    let fixed = ["--steps=2", "--seed=5", "--output=a.png", "--model", model.to_str().unwrap()];
    done(sd_worker(&[arguments, &fixed].concat(), folder));
    holds("a.png", places, folder)
}

/// That the command which a file tells makes the same file, with these files in their places. What `inspect` printed.
fn holds(file: &str, places: &[(&str, &str)], folder: &Path) -> String {
    let report = report(file, folder);
    let command: Vec<String> = serde_json::from_value(report["command"].clone()).unwrap();
    let filled = |argument: &String| {
        places.iter().fold(argument.clone(), |argument, (place, file)| argument.replace(place, file))
    };
    let again: Vec<String> = command[1..].iter().map(filled).collect();
    done(sd_worker(&again, folder));
    let bytes = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let copy = file.replace(".png", "-again.png");
    assert!(bytes(file) == bytes(&copy), "another picture: {again:?}");
    done(sd_worker(&["inspect", file], folder))
}

fn report(file: &str, folder: &Path) -> Value {
    serde_json::from_str(&done(sd_worker(&["inspect", file, "--json"], folder))).unwrap()
}

fn notes(file: &str, folder: &Path) -> String {
    String::from_utf8(sd_worker(&["inspect", file], folder).stderr).unwrap()
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

/// Each with what draws otherwise, so that leaving it out would show.
#[test]
fn parts_in_the_place_of_the_models_are_in_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = |name: &str| fixtures(name).display().to_string();
    let (vae, unet) = (path("sdxl/model/vae"), path("sd21/model/unet"));
    is_made_again(&["generate", "circle"], &[], folder);
    assert_eq!(report("a.png", folder)["parts"], json!([]));
    let plain = std::fs::read(folder.join("a.png")).unwrap();
    let places = [("--vae=VAE", format!("--vae={vae}")), ("--unet=UNET", format!("--unet={unet}"))];
    let places: Vec<(&str, &str)> = places.iter().map(|(place, file)| (*place, file.as_str())).collect();
    for flags in [&["--vae", &vae][..], &["--unet", &unet], &["--vae", &vae, "--unet", &unet]] {
        let line = is_made_again(&[&["generate", "circle"], flags].concat(), &places, folder);
        assert_eq!(line.contains("--vae=VAE"), flags.contains(&"--vae"), "{line}");
        assert_eq!(line.contains("--unet=UNET"), flags.contains(&"--unet"), "{line}");
        assert!(plain != std::fs::read(folder.join("a.png")).unwrap(), "{flags:?} draws otherwise");
    }
    let notes = notes("a.png", folder);
    for note in ["VAE stands for the VAE vae: give", "UNET stands for the UNet unet: give"] {
        assert!(notes.contains(note), "{note} is not in {notes}");
    }
    let parts = json!([
        {"flag": "--vae", "placeholder": "VAE", "name": "vae"},
        {"flag": "--unet", "placeholder": "UNET", "name": "unet"},
    ]);
    assert_eq!(report("a.png", folder)["parts"], parts);
    let bytes = std::fs::read(folder.join("a.png")).unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains("sdxl"), "where the VAE lies is told");
}

#[test]
fn textual_inversions_are_in_the_command_of_what_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = fixtures("sd15/embeddings/brushwork.safetensors").display().to_string();
    let embedding = ["--embedding", file.as_str()];
    let places = [("EMBEDDING_1", file.as_str())];
    for prompts in [
        &["a Brushwork circle"][..],
        &["a (brushwork:1.2) circle in brushwork"],
        &["a circle", "--negative-prompt=brushwork"],
        &["a brushwork circle", "--no-prompt-weighting"],
    ] {
        let line = is_made_again(&[&["generate"], prompts, &embedding].concat(), &places, folder);
        assert!(line.contains(" --embedding=EMBEDDING_1 "), "{line}");
        let notes = notes("a.png", folder);
        assert_eq!(
            notes,
            "note: EMBEDDING_1 stands for the textual inversion brushwork: give the file of that name\n"
        );
    }
    // What is loaded and not named changes no pixel.
    let line = is_made_again(&[&["generate", "a brushworks circle"], &embedding[..]].concat(), &[], folder);
    assert!(!line.contains("EMBEDDING"), "{line}");
    // Of a batch each picture tells of its own prompt alone.
    let batch = ["generate", "a {brushwork|star} circle", "--num-images=8"];
    let model = fixtures("sd15/model").display().to_string();
    let fixed = ["--steps=1", "--seed=5", "--output=b.png", "--model", &model];
    done(sd_worker(&[&batch[..], &embedding, &fixed].concat(), folder));
    let told: Vec<bool> = (1..=8)
        .map(|number| {
            let file = format!("b-{number}.png");
            let told = holds(&file, &places, folder).contains("EMBEDDING_1");
            let prompt = report(&file, folder)["request"]["prompt"].as_str().unwrap().to_owned();
            assert_eq!(told, prompt.contains("brushwork"), "{file}: {prompt}");
            told
        })
        .collect();
    assert!(told.contains(&true) && told.contains(&false), "{told:?}");
}

#[test]
fn the_network_of_a_second_pass_is_in_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = fixtures("upscalers/basic_4x.safetensors").display().to_string();
    let hires = ["generate", "circle", "--hires-scale=1.5", "--upscaler", &file];
    let network = [&hires[..], &["--hires-upscaler=network"]].concat();
    let line = is_made_again(&network, &[("=UPSCALER", &format!("={file}"))], folder);
    assert!(line.contains(" --upscaler=UPSCALER "), "{line}");
    let told = notes("a.png", folder);
    assert_eq!(told, "note: UPSCALER stands for the upscaler basic_4x: give its file\n");
    // Where it was loaded and had nothing to do it is not needed.
    let line = is_made_again(&hires, &[], folder);
    assert!(!line.contains("UPSCALER"), "{line}");
}

/// A single file has neither configurations nor a vocabulary.
#[test]
fn configurations_from_elsewhere_are_in_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (file, config) = (spelt::write("sd15", folder), spelt::model("sd15").display().to_string());
    let arguments = ["generate", "circle", "--model-config", &config];
    let line = is_made_again_by(&file, &arguments, &[("=MODEL_CONFIG", &format!("={config}"))], folder);
    assert!(line.contains(" --model-config=MODEL_CONFIG "), "{line}");
    let told =
        "note: MODEL_CONFIG stands for the configurations of model: give that model's name or folder\n";
    assert_eq!(notes("a.png", folder), told);
    let line = is_made_again(&arguments, &[], folder);
    assert!(!line.contains("MODEL_CONFIG"), "a folder has its own: {line}");
}

#[test]
fn a_refiner_is_in_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let refiner = fixtures("refiner/model").display().to_string();
    let arguments = ["generate", "circle", "--refiner", &refiner, "--refiner-start=0.5"];
    let line = is_made_again_by(
        &fixtures("sdxl/model"),
        &arguments,
        &[("=REFINER", &format!("={refiner}"))],
        folder,
    );
    assert!(line.contains(" --refiner-start=0.5 ") && line.contains(" --refiner=REFINER "), "{line}");
    let told = notes("a.png", folder);
    assert_eq!(told, "note: REFINER stands for the refiner model: give its name, folder or file\n");
}

#[test]
fn the_note_of_an_enlarged_picture_says_what_the_command_says() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = |name: &str| fixtures(name).display().to_string();
    let (network, vae) = (path("upscalers/basic_2x.safetensors"), path("sdxl/model/vae"));
    done(sd_worker(&["generate", "circle", "--steps=1", "--vae", &vae, "--output=a.png"], folder));
    done(sd_worker(&["upscale", "a.png", "--model", &network, "--output=b.png"], folder));
    // What the picture was made with before is of its own file's concern.
    let places = [("IMAGE", "a.png"), ("--model=basic_2x", &format!("--model={network}"))];
    let line = holds("b.png", &places, folder);
    assert!(line.starts_with("sd-worker upscale IMAGE ") && !line.contains("--vae"), "{line}");
    let (told, report) = (notes("b.png", folder), report("b.png", folder));
    assert!(told.contains("note: IMAGE stands for the picture") && !told.contains("FILE"), "{told}");
    assert_eq!(report["needs"], json!([{"field": "image", "flag": "FILE", "placeholder": "IMAGE"}]));
}

/// Whoever gets a picture learns the names of such files, as of models, and not where the worker has them.
#[test]
fn a_service_tells_names_and_no_places() {
    let folder = tempfile::tempdir().unwrap();
    let vae = folder.path().join("house-vae");
    std::fs::create_dir(&vae).unwrap();
    for file in std::fs::read_dir(fixtures("sdxl/model/vae")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), vae.join(file.file_name())).unwrap();
    }
    let network = folder.path().join("house-4x.safetensors");
    std::fs::copy(fixtures("upscalers/basic_4x.safetensors"), &network).unwrap();
    let path = |path: &Path| path.display().to_string();
    let service = Service::start(&["--vae", &path(&vae), "--upscaler", &path(&network)]);
    let (status, accepted) = service.submit(&json!({
        "operation": "image_generation", "prompt": "circle", "steps": 2, "seed": 3, "width": 64, "height": 64,
        "hires": {"scale": 1.25, "upscaler": "network", "strength": 0.5},
    }));
    assert_eq!(status, 202, "{accepted}");
    let story = service.get(accepted["sse_url"].as_str().unwrap()).1;
    assert!(story.contains("\"type\":\"complete\""), "{story}");
    let picture = service.get(&format!("/v1/jobs/{}/images/0", accepted["job_id"].as_str().unwrap())).1;
    assert!(
        picture.contains("VAE: house-vae, Hires upscaler: house-4x, Version"),
        "its settings lack a part"
    );
    let place = folder.path().file_name().unwrap().to_str().unwrap();
    assert!(!picture.contains(place) && !story.contains(place), "a place is told");
}
