//! Enlarging over HTTP and on the command line: one way, and the same bytes.

#![allow(clippy::unwrap_used)]

#[path = "support/service.rs"]
mod service;

use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use service::{PATIENCE, Service};

const NETWORK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/upscalers/basic_4x.safetensors");

fn sd_worker(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sd-worker")).args(arguments).current_dir(folder).output().unwrap()
}

fn done(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn events(story: &str) -> Vec<Value> {
    let data = story.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter_map(|data| serde_json::from_str(data).ok()).collect()
}

#[test]
fn the_operation_gives_the_bytes_of_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    done(sd_worker(
        &["generate", "a red circle on grass", "--steps=3", "--seed=4", "--output=a.png"],
        folder,
    ));
    let picture = STANDARD.encode(std::fs::read(folder.join("a.png")).unwrap());
    let network = format!("--model={NETWORK}");
    let service = Service::start(&["--upscaler", NETWORK]);
    let models: Value = serde_json::from_str(&service.get("/v1/models").1).unwrap();
    let model = &models["models"][0];
    assert_eq!(
        model["upscale_models"],
        json!([{"name": "basic_4x", "scale": 4, "size_multiple": 1}]),
        "{model}"
    );
    assert!(model["operations"].as_array().unwrap().contains(&json!("image_upscale")));

    for (fields, flags, name) in [
        (json!({}), vec![], "large.png"),
        (
            json!({"scale": 2.5, "tile": 40, "margin": 6}),
            vec!["--scale=2.5", "--tile=40", "--margin=6"],
            "b.png",
        ),
        (
            json!({"output": {"format": "jpeg", "quality": 70}, "model": "basic_4x"}),
            vec!["--quality=70"],
            "c.jpg",
        ),
        (json!({"output": {"format": "webp", "metadata": false}}), vec!["--no-metadata"], "d.webp"),
        (json!({"tiling": {"x": true, "y": true}}), vec!["--tiling=both"], "tile.png"),
    ] {
        let mut request = fields.clone();
        request["operation"] = "image_upscale".into();
        request["image"] = picture.as_str().into();
        let (status, accepted) = service.submit(&request);
        assert_eq!(status, 202, "{accepted}");
        let told = events(&service.get(accepted["sse_url"].as_str().unwrap()).1);
        let types: Vec<&str> = told.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(types[..2], ["queued", "started"], "{name}");
        let tiles = told[1]["steps"].as_u64().unwrap() as usize;
        assert_eq!(types[2..], [vec!["progress"; tiles], vec!["complete"]].concat(), "{name}");
        assert_eq!(tiles > 1, name == "b.png", "{name} has {tiles} tiles");
        let last = told.last().unwrap();
        let over_http = STANDARD.decode(last["images"][0]["image"].as_str().unwrap()).unwrap();

        let output = format!("--output={name}");
        done(sd_worker(&[&["upscale", "a.png", &network, &output][..], &flags].concat(), folder));
        assert!(over_http == std::fs::read(folder.join(name)).unwrap(), "{name}: other bytes");
    }

    // What the file tells makes it again.
    let line = done(sd_worker(&["inspect", "b.png"], folder));
    let expected =
        "sd-worker upscale IMAGE --margin=6 --model=basic_4x --scale=2.5 --tile=40 --output=b-again.png\n";
    assert_eq!(line, expected);
    let line = line.replace("IMAGE", "a.png").replace("--model=basic_4x", &network);
    done(sd_worker(&line.split_whitespace().skip(1).collect::<Vec<_>>(), folder));
    assert!(
        std::fs::read(folder.join("b.png")).unwrap() == std::fs::read(folder.join("b-again.png")).unwrap()
    );
}

#[test]
fn a_job_is_cancelled_between_two_tiles() {
    let service = Service::start(&["--upscaler", NETWORK]);
    let mut file = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_fn(600, 600, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]))
        .write_to(&mut file, image::ImageFormat::Png)
        .unwrap();
    let request = json!({"operation": "image_upscale", "image": STANDARD.encode(file.into_inner()),
                         "tile": 32, "margin": 8, "output": {"format": "jpeg"}});
    let (status, accepted) = service.submit(&request);
    assert_eq!(status, 202, "{accepted}");
    let address = format!("/v1/jobs/{}", accepted["job_id"].as_str().unwrap());
    let job = || serde_json::from_str::<Value>(&service.get(&address).1).unwrap();
    let start = Instant::now();
    while job()["progress"].is_null() {
        assert!(start.elapsed() < PATIENCE, "never a tile");
    }
    assert_eq!(service.send("DELETE", &address, "", "").0, 202);
    let story = service.get(&format!("{address}/stream")).1;
    assert!(story.contains("data: [CANCELLED]") && !story.contains("\"complete\""), "{}", job());
    let progress = &job()["progress"];
    assert_eq!(progress["total_steps"], 38 * 38);
    assert!(progress["step"].as_u64() < progress["total_steps"].as_u64(), "{progress}");
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let picture = STANDARD.encode(include_bytes!("../../../fixtures/pictures/rgb.png"));
    let with = Service::start(&["--upscaler", NETWORK]);
    let without = Service::start(&[]);
    let request = |field: &str, value: Value| {
        let mut request = json!({"operation": "image_upscale", "image": picture});
        request[field] = value;
        request
    };
    for (service, request, status, field) in [
        (&without, request("scale", json!(4)), 422, "operation"),
        (&without, request("model", json!("basic_4x")), 422, "operation"),
        (&with, request("model", json!("demo")), 404, "model"),
        (&with, request("prompt", json!("a cat")), 400, "prompt"),
        (&with, request("scale", json!(9)), 400, "scale"),
        (&with, request("margin", json!(49)), 400, "margin"),
        (&with, request("image", json!("aGVsbG8=")), 400, "image"),
    ] {
        let (found, answer) = service.submit(&request);
        assert_eq!((found, &answer["error"]["fields"][0]["field"]), (status, &json!(field)), "{answer}");
    }
}
