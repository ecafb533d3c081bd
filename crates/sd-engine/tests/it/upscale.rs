//! `image_upscale` on a worker that has a network.

use std::path::PathBuf;

use operations_contract::{
    ImageData, ImageFormat, ImageUpscale, JobEvent, Operation, OperationKind, Output, Terminator,
};
use sd_engine::{
    EngineHandle, GenerationEngine, JobRegistry, JobRouter, JobUpdate, ModelBoard, PARAMETERS_KEY, Picture,
    RequestQueue, SubmitError, UpscaleGenerator, encode_image, read_picture, read_texts,
};
use sd_inference::{DType, Device, MemoryLimit, Seamless, UpscaleNetwork, UpscaleOptions, UpscaleTiles};

use crate::support::{Worker, next};

fn network() -> UpscaleNetwork {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/upscalers/basic_2x.safetensors");
    UpscaleNetwork::open(PathBuf::from(path), &Device::Cpu, DType::F32).unwrap()
}

async fn worker() -> (JobRouter, EngineHandle) {
    let (queue, receiver) = RequestQueue::new(8);
    let models = ModelBoard::new();
    let router = JobRouter::new(queue, JobRegistry::in_memory().unwrap(), models.clone());
    let engine = GenerationEngine::new(
        UpscaleGenerator::new(network(), MemoryLimit::default()),
        receiver,
        models.clone(),
    );
    let engine = engine.start().unwrap();
    models.settled().await;
    (router, engine)
}

fn picture(width: u32, height: u32) -> Picture {
    let bytes = (0..width * height * 3).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    Picture::from_rgb(width, height, bytes).unwrap()
}

fn file(picture: &Picture, texts: &[(&str, String)]) -> ImageData {
    ImageData::new(encode_image(picture, &Output::default(), texts).unwrap())
}

fn in_small_tiles(image: ImageData) -> ImageUpscale {
    ImageUpscale { image, tile: 32, margin: 8, ..ImageUpscale::default() }
}

#[tokio::test]
async fn every_tile_is_told_and_the_file_says_what_was_done() {
    let (router, _engine) = worker().await;
    let given = picture(70, 41);
    let told = "a cat\nSteps: 3, Sampler: Euler, Seed: 5".to_owned();
    let image = file(&given, &[(PARAMETERS_KEY, told.clone())]);
    let id = router.submit(Operation::ImageUpscale(in_small_tiles(image.clone()))).unwrap().job_id;
    let mut updates = router.subscribe(&id, 0).unwrap();
    let mut events = Vec::new();
    while let Some(update) = next(&mut updates).await {
        match update {
            JobUpdate::Event { event, .. } => events.push(event),
            JobUpdate::End(end) => assert_eq!(end, Terminator::Done),
        }
    }

    let tiles = UpscaleTiles::new(32, 8).unwrap();
    let count = tiles.count(41, 70, network().size_multiple(), Seamless::default()) as u32;
    assert!(count > 8, "{count} tiles show nothing");
    let JobEvent::Started { model, width, height, steps, .. } = &events[1] else { panic!("{:?}", events[1]) };
    assert_eq!((model.as_str(), *width, *height, *steps), ("basic_2x", 140, 82, count));
    let steps: Vec<(u32, u32)> = events
        .iter()
        .filter_map(|event| match event {
            JobEvent::Progress { step, total_steps, .. } => Some((*step, *total_steps)),
            _ => None,
        })
        .collect();
    assert_eq!(steps, (1..=count).map(|step| (step, count)).collect::<Vec<_>>());

    let Some(JobEvent::Complete { images, .. }) = events.last() else { panic!("no picture") };
    let given = image::RgbImage::from_raw(70, 41, given.into_rgb()).unwrap();
    let options = UpscaleOptions { tiles, ..UpscaleOptions::default() };
    let expected = network().upscale(&given, &options, &mut |_, _| {}).unwrap();
    assert_eq!(read_picture(images[0].image.bytes()).unwrap().rgb(), expected.as_raw().as_slice());
    let texts = read_texts(images[0].image.bytes()).unwrap();
    let continued = format!("{told}, Postprocess upscale by: 2.0000, Postprocess upscaler: basic_2x");
    assert_eq!(texts.parameters, Some(continued));
    let request: serde_json::Value = serde_json::from_str(&texts.json.unwrap()).unwrap();
    assert_eq!(
        request,
        serde_json::json!({
            "operation": "image_upscale", "image": format!("{} bytes", image.len()), "model": "basic_2x",
            "scale": 2.0, "tile": 32, "margin": 8, "output": {"format": "png", "quality": 90, "metadata": true},
        })
    );
    assert_eq!(router.job(&id).unwrap().operation, OperationKind::ImageUpscale);
}

#[tokio::test]
async fn what_would_go_wrong_is_refused_before_there_is_a_job() {
    let (router, _engine) = worker().await;
    let refused = |request: ImageUpscale| router.submit(Operation::ImageUpscale(request)).unwrap_err();
    let image = file(&picture(8, 8), &[]);
    let named = ImageUpscale { model: Some("other".into()), ..in_small_tiles(image.clone()) };
    assert_eq!(
        refused(named),
        SubmitError::ModelNotFound { name: "other".into(), there: "`basic_2x`".into() }
    );
    let broken = in_small_tiles(ImageData::new(*b"no picture"));
    assert!(refused(broken).to_string().starts_with("image: "));

    let webp = Output { format: ImageFormat::Webp, ..Output::default() };
    let long = ImageUpscale { output: webp, ..in_small_tiles(file(&picture(8192, 1), &[])) };
    assert!(refused(long).to_string().starts_with("output.format: the result has 16384 x 2 pixels"));
    let large = Picture::filled(4097, 2048, [1; 3]);
    let large = ImageUpscale { scale: Some(8.0), ..in_small_tiles(file(&large, &[])) };
    assert!(refused(large).to_string().starts_with("image: is 4097x2048 pixels"));

    let drawing = router.submit(Operation::generate("a cat")).unwrap_err();
    assert!(matches!(&drawing, SubmitError::Unsupported(fields) if fields[0].field == "operation"));
}

#[tokio::test]
async fn without_a_network_the_operation_is_beyond_the_worker() {
    let worker = Worker::start().await;
    let request = ImageUpscale { model: Some("any".into()), ..in_small_tiles(file(&picture(8, 8), &[])) };
    let error = worker.router.submit(Operation::ImageUpscale(request)).unwrap_err();
    assert!(matches!(&error, SubmitError::Unsupported(fields) if fields[0].field == "operation"), "{error}");
}
