//! The binary as a user meets it: what it prints, what it writes, how it ends.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn sd_worker(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sd-worker")).args(arguments).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_picture_of_the_embedded_model_is_written_and_told_about() {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        ["generate", "a red circle on green grass", "--steps", "3", "--seed", "5", "--output", "c.png"];
    let output = sd_worker(&arguments, folder.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert!(printed.contains("c.png") && printed.contains("seed 5") && printed.contains(" s "), "{printed}");
    assert_eq!(files(folder.path()), ["c.png"]);
    let image = image::open(folder.path().join("c.png")).unwrap();
    assert_eq!((image.width(), image.height()), (demo_side(), demo_side()));
}

/// The side of the pictures that the demonstration model is made for.
fn demo_side() -> u32 {
    let settings: Value = serde_json::from_str(include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../models/demo/sd-worker.json"
    )))
    .unwrap();
    settings["default_width"].as_u64().unwrap() as u32
}

/// The last picture on the way lies beside the finished one and looks like it; the finished one is what it is without.
#[test]
fn a_picture_on_the_way_is_shown_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |more: &[&str]| {
        let arguments = [
            &[
                "generate",
                "a large red circle on sand",
                "--steps=6",
                "--seed=5",
                "--output=c.png",
                "--no-metadata",
            ],
            more,
        ];
        let output = sd_worker(&arguments.concat(), folder.path());
        assert!(output.status.success(), "{}", text(&output.stderr));
        std::fs::read(folder.path().join("c.png")).unwrap()
    };
    let plain = draw(&[]);
    let watched =
        draw(&["--preview=way.jpg", "--preview-every=5", "--preview-method=vae", "--preview-side=64"]);
    assert!(plain == watched, "looking on changed the picture");
    assert_eq!(files(folder.path()), ["c.png", "way.jpg"]);
    let on_the_way = image::open(folder.path().join("way.jpg")).unwrap().to_rgb8();
    assert_eq!(on_the_way.dimensions(), (64, 64));
    // After five of six steps it is nearly what it becomes.
    let finished = image::load_from_memory(&plain).unwrap();
    let finished = finished.resize_exact(64, 64, image::imageops::FilterType::Triangle).to_rgb8();
    let sum: u64 = on_the_way.iter().zip(finished.iter()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    assert!(sum / 64 / 64 / 3 < 20, "mean difference {}", sum / 64 / 64 / 3);
    for (arguments, named) in [
        (["generate", "x", "--preview=way.png"], ".jpg"),
        (["generate", "x", "--preview-every=3"], "--preview"),
    ] {
        let output = sd_worker(&arguments, folder.path());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(named), "{}", text(&output.stderr));
    }
}

#[test]
fn json_tells_the_same_to_programs_and_the_same_seed_gives_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut pictures = Vec::new();
    for name in ["a.png", "b.png"] {
        let arguments =
            ["generate", "a star", "--steps=2", "--seed=9", "--no-metadata", "--json", "-o", name];
        let output = sd_worker(&arguments, folder.path());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["images"][0]["seed"], 9);
        assert_eq!(report["images"][0]["file"], name);
        assert!(report["elapsed_ms"].as_u64().unwrap() > 0);
        pictures.push(std::fs::read(folder.path().join(name)).unwrap());
    }
    assert_eq!(pictures[0], pictures[1]);
}

#[test]
fn a_reader_that_goes_away_disturbs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_sd-worker"))
        .args(["generate", "a star", "--steps=2", "--output=a.png"])
        .current_dir(folder.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(files(folder.path()), ["a.png"]);
}

/// From the red circle on: at strength 0 it stays, at 0.9 the prompt decides.
#[test]
fn a_picture_is_made_from_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = sd_worker(arguments, folder.path());
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    let middle = |name: &str| {
        let picture = image::open(folder.path().join(name)).unwrap().to_rgb8();
        picture.get_pixel(picture.width() / 2, picture.height() / 2).0
    };
    run(&["generate", "a large red circle on grass", "--seed=5", "--output=circle.png"]);
    let [red, green, blue] = middle("circle.png");
    assert!(red > 150 && green < 110 && blue < 110, "{red} {green} {blue} is not red");

    let prompt = "a large blue circle on sand";
    let transform = ["transform", prompt, "--image=circle.png", "--seed=5", "--output"];
    run(&[&transform[..], &["same.png", "--strength=0"]].concat());
    let [same, _, _] = middle("same.png");
    assert!(same.abs_diff(red) < 40, "{same} instead of {red}");
    run(&[&transform[..], &["blue.png", "--strength=0.9"]].concat());
    let [red, _, blue] = middle("blue.png");
    assert!(blue > red, "blue {blue}, red {red}");

    for (image, named) in [("none.png", "none.png"), ("Cargo.toml", "Cargo.toml")] {
        let path = format!("--image={image}");
        let output = sd_worker(&["transform", prompt, &path, "--output=a.png"], folder.path());
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(named), "{}", text(&output.stderr));
    }
}

/// The demonstration model as its own refiner draws what it draws alone; another model's refiner and UNet do not fit it.
#[test]
fn a_refiner_and_a_unet_are_taken_by_name_and_by_path() {
    let folder = tempfile::tempdir().unwrap();
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo");
    let run = |name: &str, arguments: &[&str]| {
        let output = format!("--output={name}");
        let base =
            ["generate", "a red circle on grass", "--steps=5", "--seed=5", "--sampler=euler_a", &output];
        sd_worker(&[&base, arguments].concat(), folder.path())
    };
    let picture = |name: &str, arguments: &[&str]| {
        let output = run(name, arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        image::open(folder.path().join(name)).unwrap().to_rgb8()
    };
    let alone = picture("alone.png", &[]);
    assert!(picture("demo.png", &["--refiner=demo", "--refiner-start=0.5"]) == alone);
    assert!(picture("folder.png", &[&format!("--refiner={demo}")]) == alone);
    assert!(picture("unet.png", &[&format!("--unet={demo}/unet")]) == alone);
    assert!(picture("trailing.png", &["--timestep-spacing=trailing"]) != alone);

    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures");
    let (refiner, unet) =
        (format!("--refiner={fixtures}/refiner/model"), format!("--unet={fixtures}/sd15/model"));
    for (arguments, named) in [
        (&["--refiner-start=0.5"][..], "--refiner"),
        (&["--refiner=demo", "--refiner-start=1"], "refiner.start"),
        (&["--refiner=demo", "--hires-scale=2"], "hires"),
        (&["--refiner=nosuch"], "nosuch"),
        (&[&refiner], "family"),
        (&[&unet], "text states"),
        (&["--timestep-spacing=even"], "trailing"),
    ] {
        let output = run("refused.png", arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(named), "{}", text(&output.stderr));
    }
}

/// The refiner of SDXL draws from pictures only, alone and behind the model that it was made for.
#[test]
fn sdxl_hands_over_to_its_refiner() {
    let folder = tempfile::tempdir().unwrap();
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures");
    let (base, refiner) = (format!("{fixtures}/sdxl/model"), format!("{fixtures}/refiner/model"));
    let run =
        |arguments: &[&str]| sd_worker(&[arguments, &["--steps=4", "--seed=5"]].concat(), folder.path());
    let done = |arguments: &[&str]| {
        let output = run(arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    let open = |name: &str| image::open(folder.path().join(name)).unwrap().to_rgb8();
    done(&["generate", "a star", "--model", &base, "--output=a.png"]);
    done(&[
        "generate",
        "a star",
        "--model",
        &base,
        "--refiner",
        &refiner,
        "--refiner-start=0.5",
        "--output=b.png",
    ]);
    assert!(open("a.png") != open("b.png"));
    done(&["transform", "a star", "--model", &refiner, "--image=a.png", "--strength=0.5", "--output=c.png"]);
    assert!(open("a.png") != open("c.png"));
    let output = run(&["generate", "a star", "--model", &refiner]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("image_transform"), "{}", text(&output.stderr));
    let output = sd_worker(&["models", "inspect", &refiner], folder.path());
    assert!(text(&output.stdout).contains("text_encoder_2"), "{}", text(&output.stdout));
}

#[test]
fn pictures_tile_and_grow() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let base = ["generate", "a red circle on grass", "--steps=4", "--seed=5", "--output"];
        let output = sd_worker(&[&base, arguments].concat(), folder.path());
        assert!(output.status.success(), "{}", text(&output.stderr));
        image::open(folder.path().join(arguments[0])).unwrap().to_rgb8()
    };
    let plain = run(&["plain.png"]);
    let tiles = run(&["tiles.png", "--tiling=both"]);
    assert!(plain != tiles && plain.dimensions() == tiles.dimensions());
    let large = run(&["large.png", "--hires-scale=1.5", "--hires-upscaler=lanczos"]);
    let grown = (demo_side() * 3 / 2, demo_side() * 3 / 2);
    assert_eq!(large.dimensions(), grown);
    let network =
        concat!("--upscaler=", env!("CARGO_MANIFEST_DIR"), "/../../fixtures/upscalers/basic_2x.safetensors");
    let by_network = run(&["network.png", "--hires-scale=1.5", "--hires-upscaler=network", network]);
    assert!(by_network.dimensions() == grown && by_network != large);

    for (arguments, named) in [
        (["--hires-scale=9", "--seed=1"], "hires.scale"),
        (["--hires-scale=2", "--hires-strength=0.01"], "hires.strength"),
        (["--hires-steps=2", "--seed=1"], "--hires-scale"),
        (["--hires-scale=2", "--hires-upscaler=network"], "hires.upscaler"),
    ] {
        let output = sd_worker(&[&["generate", "x"][..], &arguments].concat(), folder.path());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(named), "{}", text(&output.stderr));
    }
}

#[test]
fn what_a_mask_does_not_mark_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = sd_worker(arguments, folder.path());
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    let picture = |name: &str| image::open(folder.path().join(name)).unwrap().to_rgb8();
    run(&["generate", "a large red circle on grass", "--seed=5", "--output=circle.png"]);
    let side = demo_side();
    let marked = |x: u32| x >= side / 2;
    image::GrayImage::from_fn(side, side, |x, _| image::Luma([if marked(x) { 255 } else { 0 }]))
        .save(folder.path().join("mask.png"))
        .unwrap();
    run(&[
        "inpaint",
        "a large blue circle on sand",
        "--image=circle.png",
        "--mask=mask.png",
        "--seed=5",
        "--output=half.png",
    ]);
    let (before, after) = (picture("circle.png"), picture("half.png"));
    for (x, y, pixel) in after.enumerate_pixels().filter(|(x, ..)| !marked(*x)) {
        assert_eq!(pixel, before.get_pixel(x, y), "{x}, {y}");
    }
    let redrawn =
        after.enumerate_pixels().filter(|(x, y, pixel)| marked(*x) && *pixel != before.get_pixel(*x, *y));
    assert!(redrawn.count() * 8 > (side * side * 3) as usize);
    let [red, _, blue] = after.get_pixel(side * 11 / 16, side / 2).0;
    assert!(blue > red, "blue {blue}, red {red}");

    let narrow = image::GrayImage::new(side / 2, side);
    narrow.save(folder.path().join("narrow.png")).unwrap();
    let arguments = ["inpaint", "x", "--image=circle.png", "--mask=narrow.png", "--output=a.png"];
    let output = sd_worker(&arguments, folder.path());
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(&format!("{} x {side}", side / 2)), "{}", text(&output.stderr));
}

#[test]
fn several_pictures_are_numbered_and_have_seeds_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        ["generate", "a star", "--steps=2", "--seed=1", "--num-images=2", "--json", "-o", "s.jpg"];
    let output = sd_worker(&arguments, folder.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(files(folder.path()), ["s-1.jpg", "s-2.jpg"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["images"][1]["seed"], 2);
}

#[test]
fn wildcards_are_told_and_switched_off_with_the_rest_of_the_syntax() {
    let folder = tempfile::tempdir().unwrap();
    let prompt = "a {red|red} (circle:1.2) on grass";
    let run = |more: &[&str]| {
        let arguments = [&["generate", prompt, "--seed=5", "--steps=2", "--output=a.png"], more].concat();
        let output = sd_worker(&arguments, folder.path());
        assert!(output.status.success(), "{}", text(&output.stderr));
        (text(&output.stderr), std::fs::read(folder.path().join("a.png")).unwrap())
    };
    let (notes, picture) = run(&[]);
    let chosen = "a red (circle:1.2) on grass";
    assert!(notes.contains(&format!("seed 5 chose the prompt: {chosen}\n")), "{notes}");
    let holds = |picture: &[u8], text: &str| picture.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds(&picture, &format!("\"prompt\":\"{chosen}\"")));
    let (notes, literal) = run(&["--no-prompt-weighting"]);
    assert!(!notes.contains("chose"), "{notes}");
    assert!(holds(&literal, &format!("\"prompt\":\"{prompt}\"")));
    assert_ne!(picture, literal);
}

#[test]
fn a_flag_may_come_from_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_sd-worker"))
        .args(["generate", "a star", "--json"])
        .env("SD_WORKER_STEPS", "2")
        .env("SD_WORKER_SEED", "77")
        .env("SD_WORKER_OUTPUT", "env.webp")
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["images"][0]["seed"], 77);
    assert_eq!(files(folder.path()), ["env.webp"]);
}

/// Every mistake: exit code 2, one clear message that names what is wrong, no backtrace, no file.
#[test]
fn mistakes_end_with_exit_code_2_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    for (arguments, named) in [
        (vec!["generate"], "PROMPT"),
        (vec!["generate", "x", "--width", "513"], "width"),
        (vec!["generate", "x", "--width", "-1"], "--width"),
        (vec!["generate", "x", "--seed", "18446744073709551616"], "from 0 to 18446744073709551615"),
        (vec!["inpaint", "x", "--image=a.png", "--mask=b.png", "--overlap=3"], "--extend"),
        (vec!["generate", "x", "--steps", "0"], "steps"),
        (vec!["generate", "x", "--steps", "151"], "steps"),
        (vec!["generate", "x", "--guidance-scale", "NaN"], "guidance_scale"),
        (vec!["generate", "x", "--sampler", "dpm9"], "dpm9"),
        (vec!["generate", "x", "--sampler", "flow_heun"], "flow_heun"),
        (vec!["generate", "x", "--sampler", "euler", "--eta", "0.5"], "eta: `euler` takes none"),
        (vec!["generate", "x", "--sampler", "tcd", "--eta", "1.5"], "eta"),
        (vec!["generate", "x", "--guidance-rescale", "2"], "guidance_rescale"),
        (vec!["generate", "x", "--guidance-interval", "0.5"], "two numbers with a comma"),
        (vec!["generate", "x", "--guidance-interval", "0.5,0.2"], "guidance_interval.end"),
        (vec!["generate", "x", "--schedule", "none"], "none"),
        (vec!["generate", "x", "--model", "nosuch"], "nosuch"),
        (vec!["generate", "x", "--model", "empty"], "model_index.json"),
        (vec!["generate", "x", "--output", "nowhere/a.png"], "nowhere"),
        (vec!["generate", "x", "--output", "a.tiff"], "a.tiff"),
        (vec!["generate", "x", "--output", "empty"], "empty"),
        (vec!["generate", "x", "--device", "tpu"], "tpu"),
        (vec!["generate", "x", "--dtype", "f16"], "dtype"),
        (vec!["generate", "x", "--num-images", "9"], "num_images"),
        (vec!["generate", "x", "--clip-skip", "11", "--steps", "1"], "clip_skip"),
        (vec!["generate", "a (cat:200)"], "prompt: is weighted 200 at `cat`"),
        (vec!["generate", "x", "--prompt-2", "y"], "prompt_2: is beyond model `demo`"),
        (vec!["generate", "x", "--embedding", "none.safetensors"], "none.safetensors"),
        (vec!["generate", "x", "--embedding", "old.pt"], "old.pt: it is a pickle"),
        (vec!["generate", "x", "--embeddings-dir", "none"], "none"),
        (
            vec!["generate", "x", "--threads", "0"],
            "invalid value '0' for '--threads <N>': 0 is not in 1..=1024",
        ),
        (vec!["generate", "x", "--threads", "100000"], "'--threads <N>': 100000 is not in 1..=1024"),
        (vec!["generate", "x", "--memory-limit", "1MB"], "not enough memory: demo in f32 needs"),
        (vec!["generate", "x", "--memory-limit", "24MB", "--num-images", "8"], "not enough memory: width "),
        (vec!["generate", "x", "--memory-limit", "much"], "--memory-limit"),
        (vec!["bench", "--random", "sdxl", "--memory-limit", "4GB"], "GB of weights"),
        (vec!["generate", "x", "--vae-tiling", "maybe"], "maybe"),
        (vec!["generate"], "PROMPT"),
        (vec!["paint", "x"], "paint"),
        (vec!["serve", "--listen", "0.0.0.0:0"], "token"),
        (vec!["serve", "--listen", "nowhere"], "nowhere"),
        (vec!["serve", "--listen", "127.0.0.1:0", "--model", "nosuch"], "nosuch"),
        (vec!["bench", "--random", "sd9"], "sd9"),
    ] {
        let output = sd_worker(&arguments, folder.path());
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(named), "{arguments:?} does not name {named}: {message}");
        assert!(!message.contains("panicked") && !message.contains("backtrace"), "{arguments:?}: {message}");
        assert_eq!(files(folder.path()), ["empty"], "{arguments:?} left something behind");
    }
}

#[test]
fn every_broken_field_is_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let output = sd_worker(&["generate", "x", "--steps", "0", "--guidance-scale", "99"], folder.path());
    let message = text(&output.stderr);
    assert!(message.contains("steps") && message.contains("guidance_scale"), "{message}");
}

#[test]
fn help_explains_itself() {
    let folder = tempfile::tempdir().unwrap();
    let output = sd_worker(&["generate", "--help"], folder.path());
    assert!(output.status.success());
    let help = text(&output.stdout);
    for flag in ["--negative-prompt", "--guidance-scale", "--output", "--json", "SD_WORKER_SEED"] {
        assert!(help.contains(flag), "{flag} is not explained");
    }
}

#[test]
fn bench_prints_one_object_with_its_medians() {
    let folder = tempfile::tempdir().unwrap();
    let output = sd_worker(&["bench", "--iterations", "1", "--json", "--threads", "1"], folder.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for field in ["load_ms", "text_encode_ms", "step_ms", "decode_ms", "peak_rss_mb"] {
        assert!(report[field].as_f64().unwrap() > 0.0, "{field}: {report}");
    }
    for field in ["device", "dtype", "threads", "size", "batch", "kernels"] {
        assert!(!report[field].is_null(), "{field}: {report}");
    }
    assert_eq!(report["threads"], 1);
    assert!(report["picture_ms"].is_null(), "not asked for: {report}");
    for part in ["text_encode", "step", "decode"] {
        let part = &report["parts"][part];
        assert_eq!(part["samples_ms"].as_array().unwrap().len(), 1, "{part}");
        for field in ["gflop", "gflop_per_s", "share_of_peak"] {
            assert!(part[field].as_f64().unwrap() > 0.0, "{field}: {part}");
        }
    }
}

#[test]
fn bench_measures_what_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["bench", "--parts", "decode,picture", "--steps", "3", "--iterations", "2", "--json"];
    let output = sd_worker(&arguments, folder.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let parts = report["parts"].as_object().unwrap();
    assert_eq!(parts.keys().collect::<Vec<_>>(), ["decode", "picture"]);
    assert_eq!(parts["picture"]["samples_ms"].as_array().unwrap().len(), 2);
    assert_eq!(report["picture_steps"], 3);
    let gflop = |part: &str| parts[part]["gflop"].as_f64().unwrap();
    assert!(gflop("picture") > gflop("decode"), "{report}");
}

#[test]
fn a_picture_decoded_in_tiles_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (side, width) = (demo_side(), format!("--width={}", 2 * demo_side()));
    let arguments = ["generate", "a star", "--steps=1", &width, "--vae-tiling=always", "--output=t.png"];
    let output = sd_worker(&arguments, folder.path());
    let message = text(&output.stderr);
    assert!(output.status.success(), "{message}");
    assert!(message.contains(&format!("in tiles of {side} pixels")), "{message}");
    let file = text(&std::fs::read(folder.path().join("t.png")).unwrap());
    assert!(file.contains(&format!("VAE tiling: {side}")), "the metadata do not tell");
}

/// Whatever kernels a machine has, it draws the same picture as a processor with none of the faster ones.
#[test]
fn every_kernel_set_draws_the_same_picture() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |set: &str| {
        let file = format!("{set}.png");
        let output = Command::new(env!("CARGO_BIN_EXE_sd-worker"))
            .args(["generate", "a red circle on green grass", "--seed", "5", "--output", &file])
            .env("SD_KERNELS", set)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let message = text(&output.stderr);
        assert!(output.status.success(), "{set}: {message}");
        let followed = !message.contains("SD_KERNELS was not followed");
        followed.then(|| image::open(folder.path().join(file)).unwrap().to_rgb8())
    };
    let expected = draw("scalar").expect("the scalar kernels run everywhere");
    for set in ["avx2", "avx512", "amx"] {
        // A set that this machine has not was reported, and the picture drawn with another.
        let Some(picture) = draw(set) else { continue };
        let differences = expected.as_raw().iter().zip(picture.as_raw()).map(|(a, b)| a.abs_diff(*b));
        let largest = differences.max().unwrap();
        assert!(largest <= 1, "{set}: differs from scalar by {largest} of 255");
    }
}

#[test]
fn kernels_that_do_not_exist_are_warned_of_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_sd-worker"))
        .args(["generate", "a star", "--steps", "1", "--output", "s.png"])
        .env("SD_KERNELS", "sse9")
        .current_dir(folder.path())
        .output()
        .unwrap();
    let message = text(&output.stderr);
    assert!(output.status.success(), "{message}");
    assert!(message.contains("SD_KERNELS was not followed") && message.contains("sse9"), "{message}");
}

#[test]
fn info_says_what_this_machine_can_do_and_why() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, threads) in
        [(vec!["info"], "threads: "), (vec!["info", "--threads", "3"], "threads: 3: --threads")]
    {
        let output = sd_worker(&arguments, folder.path());
        assert!(output.status.success());
        let printed = text(&output.stdout);
        for part in [threads, "traces: ", "memory available: ", "kernels: ", "scalar: "] {
            assert!(printed.contains(part), "{part} is not in {printed}");
        }
    }
}

#[test]
fn info_follows_what_forces_the_kernels_and_says_where_it_cannot() {
    let folder = tempfile::tempdir().unwrap();
    let info = |kernels: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sd-worker"));
        let output =
            command.arg("info").env("SD_KERNELS", kernels).current_dir(folder.path()).output().unwrap();
        text(&output.stdout)
    };
    assert!(info("scalar").contains("kernels: scalar\n"));
    assert!(info("amx-emulated").contains("kernels: amx, emulated, for tests\n"));
    assert!(info("mmx").contains("warning: SD_KERNELS was not followed"));
}
