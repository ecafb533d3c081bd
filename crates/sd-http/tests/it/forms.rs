//! Forms: pictures as files.

use http::Request;
use sd_http::ApiConfig;
use serde_json::json;

use crate::support::{Answer, Setup, Worker};

const BOUNDARY: &str = "----form-7d1";

fn png(side: u32) -> Vec<u8> {
    let picture = image::RgbImage::from_fn(side, side, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[derive(Default)]
struct Form(Vec<u8>);

impl Form {
    fn part(mut self, disposition: &str, more: &str, bytes: &[u8]) -> Self {
        let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n{more}\r\n");
        self.0.extend(head.as_bytes());
        self.0.extend(bytes);
        self.0.extend(b"\r\n");
        self
    }

    fn text(self, name: &str, text: &str) -> Self {
        self.part(&format!("name=\"{name}\""), "", text.as_bytes())
    }

    fn file(self, name: &str, bytes: &[u8]) -> Self {
        let disposition = format!("name=\"{name}\"; filename=\"p.png\"");
        self.part(&disposition, "Content-Type: application/octet-stream\r\n", bytes)
    }

    fn whole(mut self) -> Vec<u8> {
        self.0.extend(format!("--{BOUNDARY}--\r\n").as_bytes());
        self.0
    }

    async fn send(self, worker: &Worker) -> Answer {
        send(worker, self.whole()).await
    }
}

/// Not by the shared client, which sends text.
async fn send(worker: &Worker, body: Vec<u8>) -> Answer {
    let request = Request::post("/v1/jobs")
        .header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"))
        .body(http_body_util::Full::new(bytes::Bytes::from(body)))
        .unwrap();
    Answer::of(worker.api.handle(request).await).await
}

#[tokio::test]
async fn a_picture_as_a_file_is_the_same_as_in_base64() {
    use base64::Engine as _;
    let (worker, picture) = (Worker::start().await, png(64));
    let request =
        json!({"operation": "image_transform", "prompt": "1984", "seed": 3, "steps": 4, "strength": 0.5});
    let form = Form::default().text("request", &request.to_string()).file("init_image", &picture);
    let fields = Form::default()
        .text("operation", "image_transform")
        .text("prompt", "1984")
        .text("seed", "3")
        .text("steps", "4")
        .text("strength", "0.5")
        // What a browser sends for an input without a file.
        .part("name=\"mask_image\"; filename=\"\"", "Content-Type: application/octet-stream\r\n", b"")
        // Without a name of the file, but a picture by its type.
        .part("name=\"init_image\"", "Content-Type: image/png\r\n", &picture);
    let mut base64 = request.clone();
    base64["init_image"] = base64::engine::general_purpose::STANDARD.encode(&picture).into();
    let mut views = Vec::new();
    for answer in [form.send(&worker).await, fields.send(&worker).await, worker.post(&base64).await] {
        assert_eq!(answer.status, 202, "{}", answer.text());
        let job = format!("/v1/jobs/{}", answer.json()["job_id"].as_str().unwrap());
        assert_eq!(worker.stream(&job).await.last().unwrap().data, "[DONE]");
        views.push(worker.get(&job).await.json()["parameters"].clone());
    }
    assert_eq!(views[0]["prompt"], "1984");
    assert_eq!((&views[0], &views[1]), (&views[2], &views[2]));
}

#[tokio::test]
async fn faults_name_the_part() {
    let (worker, picture) = (Worker::start().await, png(16));
    let transform = || Form::default().text("operation", "image_transform").text("prompt", "x");
    let control = || transform().text("control", r#"[{"kind": "canny"}]"#).file("init_image", &picture);
    let cases: Vec<(Form, &[&str], &str)> = vec![
        (Form::default().text("request", "[]"), &["request"], "must be a JSON object"),
        (Form::default().text("request", "{"), &["request"], "is not JSON"),
        (transform().text("steps", "many").file("init_image", &picture), &["steps"], "must be"),
        (transform().text("steps", "0").file("init_image", &picture), &["steps"], "outside 1..=150"),
        (transform().text("prompt", "y").file("init_image", &picture), &["prompt"], "twice"),
        (transform().file("init_image", &picture).file("init_image", &picture), &["init_image"], "twice"),
        (
            transform().file("init_image", &picture).file("input_image", &picture),
            &["input_image"],
            "is another name of init_image",
        ),
        (transform().file("prompt_2", &picture), &["prompt_2"], "takes no file"),
        (transform().file("init_image", b""), &["init_image"], "is empty"),
        (transform().file("init_image", b"no picture"), &["init_image"], "no PNG, JPEG or WebP"),
        (transform(), &["init_image"], "is required"),
        (transform().file("control[1].image", &picture), &["control[1].image"], "no entry of `control`"),
        (control().file("control[1].image", &picture), &["control[1].image"], "no entry of `control`"),
        (control().file("control[x].image", &picture), &["control[x].image"], "takes no file"),
        (transform().text("colour", "red").file("init_image", &picture), &["colour"], "is no field"),
        (transform().part("name=\"model\"", "", b"\xff\xfe"), &["model"], "is not UTF-8"),
        (transform().part("filename=\"x\"", "", b"x"), &["body"], "has no name"),
    ];
    for (form, fields, message) in cases {
        let answer = form.send(&worker).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "invalid_request"), "{message}");
        assert_eq!(answer.fields(), fields, "{}", answer.text());
        assert!(answer.text().contains(message), "{message}: {}", answer.text());
    }
    let control = control().file("control[0].image", &picture).send(&worker).await;
    assert_eq!(
        control.status,
        422,
        "the file is in its place; the model has no controls: {}",
        control.text()
    );
    let upscale =
        Form::default().text("operation", "image_upscale").file("image", &picture).send(&worker).await;
    assert_eq!(upscale.status, 422, "the file is in its place; there is no upscaler: {}", upscale.text());
    assert_eq!(worker.get("/v1/jobs").await.json(), json!({"jobs": []}));
}

#[tokio::test]
async fn a_form_that_is_cut_is_no_form_wherever_it_is_cut() {
    let worker = Worker::start().await;
    let request = r#"{"operation": "image_transform", "prompt": "x"}"#;
    let whole = Form::default().text("request", request).file("init_image", &png(16)).whole();
    // The last boundary's line break may be missing.
    for length in (0..whole.len() - 2).step_by(7) {
        let answer = send(&worker, whole[..length].to_vec()).await;
        assert_eq!(answer.status, 400, "{length} of {}: {}", whole.len(), answer.text());
    }
    assert_eq!(send(&worker, whole).await.status, 202);
}

#[tokio::test]
async fn parts_and_the_whole_have_limits() {
    let api = ApiConfig { max_part_bytes: 2 << 10, max_body_bytes: 8 << 10, ..ApiConfig::default() };
    let worker = Worker::with(Setup { api, ..Setup::default() }).await;
    let large = Form::default().file("init_image", &[7; (2 << 10) + 1]).send(&worker).await;
    assert_eq!((large.status.as_u16(), large.code().as_str()), (413, "payload_too_large"));
    assert!(large.text().contains("the part init_image is larger than 2048 bytes"), "{}", large.text());
    let whole = (0..5).fold(Form::default(), |form, k| form.file(&format!("x{k}"), &[7; 2 << 10]));
    let whole = whole.send(&worker).await;
    assert_eq!((whole.status.as_u16(), whole.code().as_str()), (413, "payload_too_large"));
    let many = (0..129).fold(Form::default(), |form, _| form.part("name=x", "", b"")).send(&worker).await;
    assert!(many.status == 400 && many.text().contains("more than 128 parts"), "{}", many.text());
}

#[tokio::test]
async fn a_form_must_say_where_its_parts_end() {
    let worker = Worker::start().await;
    for kind in ["multipart/form-data", "multipart/mixed; boundary=x", "multipart/form-data; boundary="] {
        let request = Request::post("/v1/jobs").header("content-type", kind);
        let answer = worker.send(request.body(String::new()).unwrap()).await;
        assert!((400..500).contains(&answer.status.as_u16()), "{kind}: {}", answer.text());
    }
}

/// A small file that declares a large picture costs nothing.
#[tokio::test]
async fn a_picture_that_would_be_too_large_is_refused_by_its_declared_size() {
    let worker = Worker::start().await;
    let mut bomb = png(16);
    // 60000 x 60000, and after the five bytes that stay the checksum by Python's zlib.crc32.
    bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    bomb[29..33].copy_from_slice(&[0x0f, 0xb0, 0xe2, 0x15]);
    let form =
        Form::default().text("operation", "image_transform").text("prompt", "x").file("init_image", &bomb);
    let answer = form.send(&worker).await;
    assert_eq!((answer.status.as_u16(), answer.fields()), (400, vec!["init_image".to_owned()]));
    assert!(answer.text().contains("60000 x 60000"), "{}", answer.text());
}
