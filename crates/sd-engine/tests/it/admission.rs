//! What is refused, before a job exists.

use std::time::Duration;

use operations_contract::{ErrorCode, Feature, FieldError, JobEvent, Operation, Terminator};
use sd_engine::{JobRegistry, JobRouter, ModelBoard, RequestQueue, Retention, SubmitError};
use serde_json::{Value, json};

use crate::generator::TestGenerator;
use crate::support::Worker;

fn png(width: u32, height: u32) -> String {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::DynamicImage::new_rgb8(width, height).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    operations_contract::ImageData::new(bytes.into_inner()).to_base64()
}

fn generation(field: &str, value: Value) -> Value {
    let mut request = json!({"operation": "image_generation", "prompt": "a cat"});
    request[field] = value;
    request
}

async fn refused(request: Value) -> SubmitError {
    let worker = Worker::start().await;
    let error = worker.router.submit_json(&request).expect_err("must be refused");
    assert!(worker.router.jobs().is_empty(), "no job may exist");
    error
}

fn named(fields: &[FieldError]) -> Vec<&str> {
    fields.iter().map(|fault| fault.field.as_str()).collect()
}

#[tokio::test]
async fn faults_of_the_contract_and_of_the_model_are_told_together() {
    let request = json!({
        "operation": "image_generation", "prompt": 7, "width": 513, "height": 2048, "sampler": "heun", "x": 1,
    });
    let SubmitError::Invalid(fields) = refused(request).await else { panic!("another refusal") };
    assert_eq!(named(&fields), ["prompt", "x", "width", "height", "sampler"]);
    assert_eq!(fields[2].message, "513 is no multiple of 8");
    assert_eq!(fields[3].limit.as_deref(), Some("16..=1024"));
}

#[tokio::test]
async fn more_images_than_the_model_can_make_are_refused() {
    let SubmitError::Invalid(fields) = refused(generation("num_images", json!(5))).await else { panic!() };
    assert_eq!(fields[0].limit.as_deref(), Some("1..=4"));
}

/// A second pass is held against what the request leaves to the model as well.
#[tokio::test]
async fn a_second_pass_within_the_models_limits_is_taken_and_others_are_refused() {
    for (request, field, value) in [
        (
            json!({"width": 512, "hires": {"scale": 2.5}}),
            "hires.scale",
            "2.5 times 512 pixels is more than 1024",
        ),
        (json!({"hires": {"strength": 0.3}}), "hires.strength", "0.3 of 3 steps is less than one step"),
        (json!({"hires": {"strength": 0.1, "steps": 9}}), "hires.strength", "0.1 of 9 steps"),
        (json!({"hires": {"scale": 0.5}}), "hires.scale", "0.5 is outside 1..=4"),
    ] {
        let mut whole = generation("steps", json!(3));
        for (key, part) in request.as_object().unwrap() {
            whole[key] = part.clone();
        }
        let SubmitError::Invalid(fields) = refused(whole).await else { panic!("{request}") };
        assert_eq!(named(&fields), [field], "{request}");
        assert!(fields[0].message.contains(value), "{}", fields[0].message);
    }
    let worker = Worker::start().await;
    let request = generation("hires", json!({"scale": 4, "strength": 0.4}));
    worker.router.submit_json(&request).unwrap();
}

#[tokio::test]
async fn what_the_model_cannot_do_is_unsupported() {
    let control = json!([{"kind": "canny", "image": "aGVsbG8="}]);
    for (field, value) in [
        ("sampler", json!("heun")),
        ("schedule", json!("beta")),
        ("rng", json!("philox")),
        ("loras", json!([{"name": "x"}])),
        ("control", control),
        ("tiling", json!({"x": true})),
        ("clip_skip", json!(1)),
        ("guidance_rescale", json!(0.5)),
        ("guidance_interval", json!({"start": 0.2})),
        ("eta", json!(0.5)),
        ("prompt_weighting", json!(true)),
        ("prompt_2", json!("a dog")),
        ("negative_prompt_2", json!("a dog")),
    ] {
        let error = refused(generation(field, value)).await;
        assert_eq!(error.detail().code, ErrorCode::UnsupportedOperation);
        assert_eq!(named(&error.detail().fields), [field]);
    }
    let error = refused(generation("preview", json!({"method": "vae"}))).await;
    assert_eq!(named(&error.detail().fields), ["preview.method"]);
    for (field, value) in [("refiner", json!({})), ("timestep_spacing", json!("trailing"))] {
        let error = refused(generation(field, value)).await;
        assert_eq!(named(&error.detail().fields), [field]);
    }
    let error = refused(generation("hires", json!({"upscaler": "network"}))).await;
    assert_eq!(named(&error.detail().fields), ["hires.upscaler"]);
}

#[tokio::test]
async fn weights_beyond_reason_are_refused_also_where_a_wildcard_makes_them() {
    let mut generator = TestGenerator::new();
    generator.capabilities.features.push(Feature::PromptWeighting);
    let worker = Worker::with(generator, 8, Retention::default()).await;
    for (prompt, field, part) in
        [("a (cat:200)", "prompt", "200 at `cat`"), ("a (dog:{500|600})", "prompt", "00 at `dog`")]
    {
        let error = worker.router.submit_json(&generation("prompt", json!(prompt))).unwrap_err();
        let SubmitError::Invalid(fields) = error else { panic!("another refusal") };
        assert_eq!(named(&fields), [field]);
        assert!(fields[0].message.contains(part), "{}", fields[0].message);
        assert_eq!(fields[0].limit.as_deref(), Some("weighted between -100 and 100"));
    }
    let mut literal = generation("prompt", json!("a (cat:200)"));
    literal["prompt_weighting"] = json!(false);
    assert!(worker.router.submit_json(&literal).is_ok());
}

#[tokio::test]
async fn a_control_that_the_model_has_not_is_unsupported_and_the_others_are_named() {
    let mut generator = TestGenerator::new();
    generator.capabilities.features.push(Feature::Control);
    generator.capabilities.controls = vec!["canny".into(), "depth".into()];
    let worker = Worker::with(generator, 8, Retention::default()).await;
    let request = |kind: &str, preprocess: &str| {
        let control = json!([{"kind": kind, "image": png(64, 64), "preprocess": preprocess}]);
        let mut request = generation("control", control);
        request["guess_mode"] = json!(true);
        worker.router.submit_json(&request)
    };
    let error = request("pose", "none").unwrap_err();
    assert_eq!(error.detail().code, ErrorCode::UnsupportedOperation);
    assert_eq!(named(&error.detail().fields), ["control[0].kind"]);
    assert!(error.to_string().contains("canny, depth"), "{error}");
    for preprocess in ["none", "canny", "depth", "depth_inverted", "lineart"] {
        let accepted = request("canny", preprocess).unwrap();
        assert_eq!(worker.story(&accepted.job_id).await.end, Terminator::Done, "{preprocess}");
        let told = worker.router.job(&accepted.job_id).unwrap().parameters;
        assert!(told["control"][0]["image"].as_str().unwrap().ends_with(" bytes"), "{told}");
        assert_eq!(told["control"][0]["preprocess"], preprocess);
    }
}

#[tokio::test]
async fn loras_that_the_worker_has_not_are_refused_by_name() {
    let mut generator = TestGenerator::new();
    generator.capabilities.features.push(Feature::Loras);
    generator.capabilities.loras = vec!["ink".into(), "wash".into()];
    let worker = Worker::with(generator, 8, Retention::default()).await;
    let request =
        generation("loras", json!([{"name": "ink"}, {"name": "../ink"}, {"name": "wash", "scale": -1}]));
    let SubmitError::Invalid(fields) = worker.router.submit_json(&request).unwrap_err() else { panic!() };
    assert_eq!(named(&fields), ["loras[1].name"]);
    assert_eq!(fields[0].limit.as_deref(), Some("ink, wash"));
    worker.router.submit_json(&generation("loras", json!([{"name": "wash", "scale": -1}]))).unwrap();
}

#[tokio::test]
async fn an_operation_that_the_model_has_not_is_unsupported_before_its_images_are_read() {
    let request = json!({"operation": "image_inpaint", "prompt": "x", "init_image": "aGVsbG8=", "mask_image": "aGVsbG8="});
    let error = refused(request).await;
    assert_eq!(error.detail().code, ErrorCode::UnsupportedOperation);
    assert!(error.to_string().contains("`image_inpaint` is beyond model `test-model`"), "{error}");
}

#[tokio::test]
async fn another_model_is_not_found() {
    let error = refused(generation("model", json!("sdxl"))).await;
    assert_eq!(error.detail().code, ErrorCode::ModelNotFound);
    assert_eq!(error.to_string(), "no model `sdxl` here; there is `test-model`");
    let mut request = generation("model", json!("sdxl"));
    request["steps"] = json!(0);
    let SubmitError::Invalid(fields) = refused(request).await else { panic!("steps are broken as well") };
    assert_eq!(named(&fields), ["steps", "model"]);
}

#[tokio::test]
async fn id_and_alias_name_the_model() {
    let worker = Worker::start().await;
    for name in ["test-model", "default"] {
        worker.router.submit_json(&generation("model", json!(name))).unwrap();
    }
    assert!(worker.router.jobs().iter().all(|job| job.model == "test-model"));
}

#[tokio::test]
async fn an_image_that_is_none_is_refused() {
    let request = json!({"operation": "image_transform", "prompt": "x", "init_image": "aGVsbG8="});
    let SubmitError::Invalid(fields) = refused(request).await else { panic!() };
    assert_eq!(fields[0].to_string(), "init_image: is no PNG, JPEG or WebP image");
}

#[tokio::test]
async fn a_result_follows_its_image_and_says_so_where_it_cannot() {
    let worker = Worker::start().await;
    let request = |width, height| json!({"operation": "image_transform", "prompt": "x", "init_image": png(width, height)});
    for (given, size, narrated) in [
        ((64, 32), (64, 32), false),
        ((70, 33), (64, 32), true),
        ((4096, 2048), (1024, 512), true),
        ((9, 9), (16, 16), true),
    ] {
        let accepted = worker.router.submit_json(&request(given.0, given.1)).unwrap();
        let story = worker.story(&accepted.job_id).await;
        let Some((_, JobEvent::Started { width, height, .. })) =
            story.events.iter().find(|(_, event)| matches!(event, JobEvent::Started { .. }))
        else {
            panic!("{story:?}")
        };
        assert_eq!((*width, *height), size, "{given:?}");
        assert_eq!(story.types().contains(&"narration"), narrated, "{given:?}");
    }
}

#[tokio::test]
async fn the_registry_keeps_no_input_images() {
    let worker = Worker::start().await;
    let image = png(64, 64);
    let request = json!({"operation": "image_transform", "prompt": "x", "init_image": image});
    let accepted = worker.router.submit_json(&request).unwrap();
    let told =
        worker.router.job(&accepted.job_id).unwrap().parameters["init_image"].as_str().unwrap().to_owned();
    assert!(told.ends_with(" bytes"), "{told}");
}

#[tokio::test]
async fn a_mask_must_be_as_large_as_its_image() {
    let mut generator = TestGenerator::new();
    generator.capabilities.operations.push(operations_contract::OperationKind::ImageInpaint);
    let worker = Worker::with(generator, 8, Retention::default()).await;
    let request = |mask| json!({"operation": "image_inpaint", "prompt": "x", "init_image": png(64, 64), "mask_image": mask});
    let error = worker.router.submit_json(&request(png(32, 64))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "mask_image: has 32 x 64 pixels, init_image 64 x 64: they must be equally large"
    );
    let accepted = worker.router.submit_json(&request(png(64, 64))).unwrap();
    assert_eq!(worker.story(&accepted.job_id).await.end, Terminator::Done);
}

#[tokio::test]
async fn a_full_queue_refuses_until_a_place_is_free() {
    let worker = Worker::with(TestGenerator::new(), 2, Retention::default()).await;
    worker.occupy().await;
    let (first, _second) = (worker.submit("1"), worker.submit("2"));
    let error = worker.router.submit(Operation::generate("3")).unwrap_err();
    let SubmitError::QueueFull { capacity: 2, retry_after } = error else { panic!("{error}") };
    assert!((Duration::from_secs(1)..=Duration::from_secs(60)).contains(&retry_after));
    assert_eq!(worker.router.jobs().len(), 3, "a refused job does not exist");
    worker.gate.open();
    worker.story(&first).await;
    assert_eq!(worker.story(&worker.submit("3")).await.end, Terminator::Done);
}

#[tokio::test]
async fn a_cancelled_job_gives_its_place_back() {
    let worker = Worker::with(TestGenerator::new(), 1, Retention::default()).await;
    let running = worker.occupy().await;
    let waiting = worker.submit("1");
    worker.router.cancel(&waiting).unwrap();
    // The engine clears the queue between two steps.
    worker.gate.let_through(1);
    worker.gate.open();
    worker.story(&running).await;
    assert_eq!(worker.story(&worker.submit("2")).await.end, Terminator::Done);
}

#[tokio::test]
async fn nothing_is_accepted_before_a_model_can_serve() {
    let (queue, _receiver) = RequestQueue::new(1);
    let models = ModelBoard::new();
    let router = JobRouter::new(queue, JobRegistry::in_memory().unwrap(), models.clone());
    let refusal = |router: &JobRouter| router.submit(Operation::generate("a cat")).unwrap_err();
    assert_eq!(refusal(&router), SubmitError::NotReady("the model is loading".into()));
    models.failed("model.safetensors is cut off");
    assert_eq!(refusal(&router), SubmitError::NotReady("model.safetensors is cut off".into()));
    assert_eq!(refusal(&router).detail().code, ErrorCode::NotReady);
    // A broken request is broken whatever the model does.
    assert!(matches!(router.submit(Operation::generate("a".repeat(10_001))), Err(SubmitError::Invalid(_))));
}
