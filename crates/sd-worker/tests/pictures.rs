//! Pictures out and in: files tell how they were made, and what is read of a user's picture is what its makers meant.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_sd-worker");

fn sd_worker(arguments: &[&str], folder: &Path) -> Output {
    Command::new(BINARY).args(arguments).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn done(output: Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn inspect(file: &str, folder: &Path) -> Value {
    serde_json::from_str(&done(sd_worker(&["inspect", file, "--json"], folder))).unwrap()
}

/// Runs the command that `inspect` gives, with the input pictures in their places, and expects the same file.
fn holds(file: &str, pictures: &[(&str, &str)], folder: &Path) {
    let report = inspect(file, folder);
    let command: Vec<String> = serde_json::from_value(report["command"].clone()).unwrap();
    let filled = |argument: &String| {
        pictures.iter().fold(argument.clone(), |argument, (place, picture)| argument.replace(place, picture))
    };
    let arguments: Vec<String> = command[1..].iter().map(filled).collect();
    done(Command::new(BINARY).args(&arguments).current_dir(folder).output().unwrap());
    let (stem, ending) = file.rsplit_once('.').unwrap();
    let bytes = |name: &str| std::fs::read(folder.join(name)).unwrap();
    assert!(bytes(file) == bytes(&format!("{stem}-again.{ending}")), "{arguments:?} makes another {file}");
}

/// Without a prompt guidance has nothing to pull to: both of its halves are told the same.
#[test]
fn an_empty_prompt_draws_the_same_with_and_without_guidance() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |prompt: &str, guidance: &str| {
        let arguments =
            ["generate", prompt, "--guidance-scale", guidance, "--steps=6", "--seed=5", "--output=e.png"];
        done(sd_worker(&arguments, folder.path()));
        image::open(folder.path().join("e.png")).unwrap().into_rgb8().into_raw()
    };
    let differ = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    let plain = draw("", "1");
    // Two halves in one pass are rounded otherwise than one.
    assert!(differ(&plain, &draw("", "7")) <= 1);
    assert!(plain == draw(" ", "1"), "blanks say nothing either");
    assert!(differ(&plain, &draw("a red circle on green grass", "7")) > 64);
    assert_eq!(inspect("e.png", folder.path())["request"]["prompt"], "a red circle on green grass");
    draw("", "7");
    holds("e.png", &[], folder.path());
}

/// The law of metadata: what a file tells makes the same file again, to the last byte.
#[test]
fn a_picture_is_made_again_from_what_its_file_tells() {
    let folder = tempfile::tempdir().unwrap();
    let prompt = "it's a \"red\" circle -- on 東京, café";
    for ending in ["png", "jpg", "webp"] {
        let output = format!("--output=c.{ending}");
        let arguments = [
            "generate",
            prompt,
            "--negative-prompt=blue: 1, Steps: 3",
            "--steps=3",
            "--sampler=euler_a",
            "--schedule=karras",
            "--num-images=2",
            "--quality=71",
            "--width=72",
            "--rng=philox",
            &output,
        ];
        done(sd_worker(&arguments, folder.path()));
        for number in [1, 2] {
            holds(&format!("c-{number}.{ending}"), &[], folder.path());
        }
    }
}

/// The same law for every setting that has a flag: none is lost on the way, and nothing is noted.
#[test]
fn no_setting_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    for settings in [
        vec![
            "--tiling=x",
            "--hires-scale=1.5",
            "--hires-strength=0.5",
            "--hires-upscaler=lanczos",
            "--hires-steps=4",
        ],
        vec![
            "--tiling=both",
            "--guidance-interval=0.2,0.8",
            "--guidance-rescale=0.5",
            "--no-prompt-weighting",
        ],
        vec!["--sampler=euler", "--timestep-spacing=trailing"],
        vec!["--sampler=ddim", "--eta=0.7", "--clip-skip=1", "--vae-tiling=always", "--width=128"],
    ] {
        let arguments =
            [&["generate", "a (red:1.3) {circle|star}", "--steps=3", "--output=s.png"][..], &settings];
        done(sd_worker(&arguments.concat(), folder.path()));
        holds("s.png", &[], folder.path());
        assert_eq!(inspect("s.png", folder.path())["notes"], serde_json::json!([]), "{settings:?}");
    }
}

/// What it prints can be given to a shell as it is.
#[test]
fn the_printed_command_runs_in_a_shell() {
    let folder = tempfile::tempdir().unwrap();
    let prompt = "-it's a `star` $HOME";
    let arguments = ["generate", "--steps=2", "--output=a.png", "--", prompt];
    done(sd_worker(&arguments, folder.path()));
    let line = done(sd_worker(&["inspect", "a.png"], folder.path()));
    let script =
        format!("sd-worker() {{ \"$BINARY\" \"$@\"; }}\n{}", line.replacen("sd-worker", "sd_worker", 1));
    let script = script.replacen("sd-worker()", "sd_worker()", 1);
    let shell =
        Command::new("sh").args(["-c", &script]).env("BINARY", BINARY).current_dir(folder.path()).output();
    done(shell.unwrap());
    let bytes = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert!(bytes("a.png") == bytes("a-again.png"));
}

/// Files made from other pictures name them.
#[test]
fn pictures_of_pictures_are_made_again_from_the_same_ones() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| done(sd_worker(arguments, folder.path()));
    run(&["generate", "a large red circle on grass", "--seed=5", "--steps=4", "--output=circle.png"]);
    let (width, height) = picture("circle.png", folder.path()).dimensions();
    image::GrayImage::from_fn(width, height, |x, _| image::Luma([if x >= width / 2 { 255 } else { 0 }]))
        .save(folder.path().join("mask.png"))
        .unwrap();
    run(&["transform", "a star", "--image=circle.png", "--strength=0.5", "--steps=4", "--output=t.webp"]);
    holds("t.webp", &[("INIT_IMAGE", "circle.png")], folder.path());
    run(&[
        "inpaint",
        "a star",
        "--image=circle.png",
        "--mask=mask.png",
        "--mask-blur=2",
        "--padding-mask-crop=4",
        "--steps=4",
        "--output=i.jpg",
    ]);
    let report = inspect("i.jpg", folder.path());
    let needs: Vec<&str> =
        report["needs"].as_array().unwrap().iter().map(|n| n["flag"].as_str().unwrap()).collect();
    assert_eq!(needs, ["--image", "--mask"]);
    let size = std::fs::metadata(folder.path().join("circle.png")).unwrap().len();
    assert!(report["notes"].to_string().contains(&format!("a file of {size} bytes")), "{report}");
    holds("i.jpg", &[("INIT_IMAGE", "circle.png"), ("MASK_IMAGE", "mask.png")], folder.path());
}

#[test]
fn files_that_tell_nothing_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    done(sd_worker(
        &["generate", "a star", "--steps=1", "--no-metadata", "--output=bare.jpg"],
        folder.path(),
    ));
    std::fs::write(folder.path().join("words.png"), "no picture").unwrap();
    for (file, reason) in
        [("bare.jpg", "tells nothing"), ("words.png", "is no PNG, JPEG or WebP"), ("none.png", "none.png")]
    {
        let output = sd_worker(&["inspect", file], folder.path());
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(file) && message.contains(reason), "{message}");
    }
}

fn picture(name: &str, folder: &Path) -> image::RgbImage {
    image::open(folder.join(name)).unwrap().to_rgb8()
}

/// The law of outpainting: what was there keeps its bytes in its place, what is new was drawn, and the file tells how.
#[test]
fn a_picture_is_continued_beyond_its_edges() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let run = |arguments: &[&str]| {
        let output = sd_worker(arguments, folder);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    run(&[
        "generate",
        "a red circle on grass",
        "--seed=5",
        "--width=72",
        "--height=64",
        "--output=circle.png",
    ]);
    for (extend, size, (left, top), grows) in [
        ("8,0,16,0", (96, 64), (8, 0), false),
        ("0,5,0,0", (72, 72), (0, 8), true),
        ("3,0,0,9", (80, 80), (8, 0), true),
    ] {
        let extend = format!("--extend={extend}");
        let told = run(&[
            "inpaint",
            "a red circle on grass",
            "--image=circle.png",
            &extend,
            "--overlap=4",
            "--steps=4",
            "--output=wide.png",
        ]);
        assert_eq!(told.contains("grows"), grows, "{told}");
        let (before, after) = (picture("circle.png", folder), picture("wide.png", folder));
        assert_eq!(after.dimensions(), size);
        // The overlap may be redrawn along any side: what lies further in is kept.
        for (x, y, pixel) in
            before.enumerate_pixels().filter(|(x, y, _)| (4..68).contains(x) && (4..60).contains(y))
        {
            assert_eq!(pixel, after.get_pixel(x + left, y + top), "{extend}: {x}, {y}");
        }
        let ground =
            |x: u32, y: u32| before.get_pixel(x.saturating_sub(left).min(71), y.saturating_sub(top).min(63));
        let outside = |x: u32, y: u32| x < left || y < top || x >= left + 72 || y >= top + 64;
        let new: Vec<_> = after.enumerate_pixels().filter(|(x, y, _)| outside(*x, *y)).collect();
        let drawn = new.iter().filter(|(x, y, pixel)| *pixel != ground(*x, *y)).count();
        assert!(drawn * 10 > new.len() * 9, "{extend}: {drawn} of {} pixels were drawn", new.len());
        holds("wide.png", &[("INIT_IMAGE", "circle.png")], folder);
    }
}

#[test]
fn the_mask_may_stand_in_the_alpha_channel() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    done(sd_worker(
        &["generate", "a red circle on grass", "--seed=5", "--steps=4", "--output=circle.png"],
        folder,
    ));
    let before = picture("circle.png", folder);
    let (width, height) = before.dimensions();
    image::RgbaImage::from_fn(width, height, |x, y| {
        let [red, green, blue] = before.get_pixel(x, y).0;
        image::Rgba([red, green, blue, if x < width / 2 { 255 } else { 0 }])
    })
    .save(folder.join("half.png"))
    .unwrap();
    let arguments = [
        "inpaint",
        "a star",
        "--image=half.png",
        "--mask-from-alpha",
        "--steps=4",
        "--seed=1",
        "--output=star.png",
    ];
    done(sd_worker(&arguments, folder));
    let after = picture("star.png", folder);
    assert!(
        after
            .enumerate_pixels()
            .filter(|(x, ..)| *x < width / 2)
            .all(|(x, y, pixel)| pixel == before.get_pixel(x, y))
    );
    let changed = after
        .enumerate_pixels()
        .filter(|(x, y, pixel)| *x >= width / 2 && *pixel != before.get_pixel(*x, *y));
    assert!(changed.count() * 8 > (width * height * 3) as usize);
    holds("star.png", &[("INIT_IMAGE", "half.png")], folder);

    let canvas = format!("makes a canvas of {} x {height} pixels", width + 4096);
    for (arguments, named) in [
        (vec!["--image=circle.png", "--mask-from-alpha"], "no alpha channel"),
        (vec!["--image=circle.png"], "mask_image: is missing"),
        (vec!["--image=circle.png", "--extend=1,2,3"], "four numbers"),
        (vec!["--image=circle.png", "--extend=0,0,0,0"], "extends no side"),
        (vec!["--image=circle.png", "--extend=2048,0,2048,0"], canvas.as_str()),
    ] {
        let output = sd_worker(&[&["inpaint", "x"][..], &arguments].concat(), folder);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(named), "{arguments:?}: {message}");
    }
}

/// What other programs write is read as far as it has counterparts; ours is read by others (see `tools/reference`).
#[test]
fn files_of_a1111_become_requests() {
    let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/pictures"));
    for (file, prompt) in [("a1111.png", "a lighthouse"), ("a1111_unicode.png", "灯台")] {
        let report = inspect(file, fixtures);
        let request = &report["request"];
        assert_eq!(
            (&request["prompt"], &request["negative_prompt"]),
            (&prompt.into(), &"fog".into()),
            "{report}"
        );
        assert_eq!((&request["sampler"], &request["schedule"]), (&"dpmpp_2m_sde".into(), &"karras".into()));
        assert_eq!((&request["seed"], &request["height"]), (&1_234_567_890.into(), &640.into()));
        assert_eq!(report["own"], false);
        assert!(report["notes"].to_string().contains("6ce0161689"), "{report}");
    }
}

/// The sizes that models cannot do: said for pictures, refused for numbers.
#[test]
fn sizes_that_are_no_multiple_are_handled_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    image::RgbImage::from_pixel(90, 70, image::Rgb([90, 120, 60])).save(folder.join("odd.png")).unwrap();
    let output = sd_worker(&["transform", "grass", "--image=odd.png", "--steps=2", "--output=o.png"], folder);
    let told = text(&output.stderr);
    assert!(output.status.success() && told.contains("90 x 70") && told.contains("88 x 64"), "{told}");
    assert_eq!(picture("o.png", folder).dimensions(), (88, 64));
    // The smallest side of the model holds for what follows a picture too.
    image::RgbImage::from_pixel(100, 37, image::Rgb([90, 120, 60])).save(folder.join("flat.png")).unwrap();
    let output =
        sd_worker(&["transform", "grass", "--image=flat.png", "--steps=2", "--output=o.png"], folder);
    let told = text(&output.stderr);
    assert!(told.contains("the image has 100 x 37 pixels; the result has 96 x 64"), "{told}");
    assert_eq!(picture("o.png", folder).dimensions(), (96, 64));
    let output = sd_worker(&["generate", "grass", "--width=70"], folder);
    assert!(text(&output.stderr).contains("70 is no multiple of 8"), "{}", text(&output.stderr));
}

/// A strength of less than one step takes none, so no step can bring the notes.
#[test]
fn notes_are_told_though_no_step_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    image::RgbImage::from_pixel(64, 64, image::Rgb([90, 120, 60])).save(folder.join("green.png")).unwrap();
    let mask = image::GrayImage::from_fn(64, 64, |x, _| image::Luma([if x < 32 { 255 } else { 0 }]));
    mask.save(folder.join("mask.png")).unwrap();
    let told = |command: &[&str], strength: &str| {
        let more = ["a {red|red} star", "--image=green.png", "--steps=20", "--seed=5", "--output=o.png"];
        let output = sd_worker(&[command, &more, &["--strength", strength]].concat(), folder);
        let told = text(&output.stderr);
        assert!(output.status.success(), "{told}");
        assert_eq!(told.matches("note: seed 5 chose the prompt: a red star").count(), 1, "{told}");
        told
    };
    let less =
        "note: strength 0.04 of 20 steps is less than one step: the picture only passes through the VAE";
    for command in [&["transform"][..], &["inpaint", "--mask=mask.png"]] {
        assert!(told(command, "0.04").contains(less), "{command:?}");
        assert!(!told(command, "0").contains("less than one step"), "{command:?}");
        // With a step they come by it, and once.
        assert!(!told(command, "0.05").contains("less than one step"), "{command:?}");
    }
}

/// What a mask keeps is kept to the byte at any size, and the file tells enough to make it again.
#[test]
fn a_mask_keeps_pixels_at_sides_that_are_no_multiples() {
    let folder = tempfile::tempdir().unwrap();
    let before =
        image::RgbImage::from_fn(93, 69, |x, y| image::Rgb([(x * 2) as u8, (y * 3) as u8, (x ^ y) as u8]));
    before.save(folder.path().join("odd.png")).unwrap();
    let marked = |x: u32, y: u32| x >= 60 && y >= 30;
    let mask = image::GrayImage::from_fn(93, 69, |x, y| image::Luma([if marked(x, y) { 255 } else { 0 }]));
    mask.save(folder.path().join("mask.png")).unwrap();
    let arguments =
        ["inpaint", "a star", "--image=odd.png", "--mask=mask.png", "--steps=3", "--output=filled.png"];
    done(sd_worker(&arguments, folder.path()));
    let after = picture("filled.png", folder.path());
    assert_eq!(after.dimensions(), before.dimensions());
    for (x, y, pixel) in before.enumerate_pixels().filter(|(x, y, _)| !marked(*x, *y)) {
        assert_eq!(after.get_pixel(x, y), pixel, "{x}, {y}");
    }
    assert!(after.get_pixel(80, 50) != before.get_pixel(80, 50), "nothing was drawn");
    holds("filled.png", &[("INIT_IMAGE", "odd.png"), ("MASK_IMAGE", "mask.png")], folder.path());
}

/// The result is as much larger as the network makes it, or as it is asked for; tiles or not.
#[test]
fn a_picture_is_enlarged() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    done(sd_worker(&["generate", "a red circle on grass", "--steps=4", "--output=circle.jpg"], folder));
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures");
    let network = |name: &str| format!("--model={fixtures}/upscalers/{name}.safetensors");
    let upscale = |arguments: &[&str]| {
        let arguments = [&["upscale", "circle.jpg", "--json"][..], arguments].concat();
        serde_json::from_str::<Value>(&done(sd_worker(&arguments, folder))).unwrap()
    };
    let side = picture("circle.jpg", folder).width();
    let report = upscale(&[&network("basic_4x"), "--output=large.webp"]);
    assert_eq!((&report["width"], &report["scale"]), (&(4 * side).into(), &4.into()), "{report}");
    assert_eq!(picture("large.webp", folder).dimensions(), (4 * side, 4 * side));
    let told = inspect("large.webp", folder)["parameters"].as_str().unwrap().to_owned();
    assert!(
        told.starts_with("a red circle on grass") && told.contains("Postprocess upscale by: 4.0000"),
        "{told}"
    );

    upscale(&[
        &network("numbered_2x"),
        "--scale=3",
        "--tile=32",
        "--margin=8",
        "--no-metadata",
        "--output=three.png",
    ]);
    assert_eq!(picture("three.png", folder).dimensions(), (3 * side, 3 * side));
    assert_eq!(sd_worker(&["inspect", "three.png"], folder).status.code(), Some(2), "nothing is told");

    // Memory is counted before: the network needs more than this beside itself, and the command says how much.
    let output = sd_worker(&["upscale", "circle.jpg", &network("basic_4x"), "--memory-limit=1MB"], folder);
    let message = text(&output.stderr);
    assert!(!output.status.success() && message.contains("enlarging 128x128 pixels needs"), "{message}");
    assert!(message.contains("of the limit of 1.0"), "{message}");

    let (tiny, coarse) =
        (format!("--preview-vae={fixtures}/taesd/model"), format!("--model={fixtures}/sd21/model"));
    for (arguments, named) in [
        (vec!["upscale", "none.png", "--model=x"], "none.png"),
        (vec!["upscale", "circle.jpg", "--model=none.safetensors"], "none.safetensors"),
        (vec!["upscale", "circle.jpg", "--model=circle.jpg"], "circle.jpg"),
        (vec!["upscale", "circle.jpg", &network("basic_4x"), "--scale=9"], "scale: 9 is outside 1..=8"),
        (vec!["upscale", "circle.jpg", &network("basic_4x"), "--tile=64", "--margin=17"], "margin: 17"),
        (vec!["upscale", "circle.jpg", &network("basic_4x"), "--tile=8"], "--tile"),
        (vec!["generate", "x", &coarse, &tiny], "channels and 8 pixels"),
    ] {
        let output = sd_worker(&arguments, folder);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(named), "{arguments:?}: {message}");
    }
}
