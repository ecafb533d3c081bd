//! The files that come out.

use std::io::Cursor;

use operations_contract::{Feature, ImageFormat, JobEvent, Operation};
use sd_engine::{JSON_KEY, PARAMETERS_KEY, Retention};
use sd_inference::prompt::resolve_wildcards;

use crate::generator::TestGenerator;
use crate::support::Worker;

async fn files(change: impl FnOnce(&mut Operation)) -> Vec<operations_contract::EventImage> {
    let worker = Worker::start().await;
    let mut operation = Operation::generate("a café\nby night");
    operation.common_mut().unwrap().seed = Some(41);
    change(&mut operation);
    let story = worker.story(&worker.accept(operation)).await;
    let JobEvent::Complete { images, .. } = story.last() else { panic!("{story:?}") };
    images.clone()
}

fn texts(png: &[u8]) -> Vec<(String, String)> {
    let mut reader = png::Decoder::new(Cursor::new(png)).read_info().unwrap();
    reader.next_frame(&mut vec![0; reader.output_buffer_size().unwrap()]).unwrap();
    let info = reader.info();
    info.uncompressed_latin1_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.text.clone())).collect()
}

#[tokio::test]
async fn a_png_tells_how_it_was_made() {
    let images = files(|operation| {
        operation.common_mut().unwrap().num_images = 2;
        operation.common_mut().unwrap().negative_prompt = "rain".into();
    })
    .await;
    let texts = texts(images[1].image.bytes());
    assert_eq!(texts[0].0, PARAMETERS_KEY);
    assert_eq!(
        texts[0].1,
        format!(
            "a café\nby night\nNegative prompt: rain\nSteps: 3, Sampler: Euler, Schedule type: Automatic, \
             CFG scale: 4, Seed: 42, Size: 64x64, Model: test-model, Version: sd-worker {}",
            env!("CARGO_PKG_VERSION")
        )
    );
    assert_eq!(texts[1].0, JSON_KEY);
    let again: Operation = serde_json::from_str(&texts[1].1).unwrap();
    assert_eq!((again.common().unwrap().seed, again.common().unwrap().num_images), (Some(42), 1));
    assert_eq!(again.common().unwrap().steps, Some(3));
}

#[tokio::test]
async fn each_file_tells_the_prompt_that_its_own_seed_chose() {
    let mut generator = TestGenerator::new();
    generator.capabilities.features.push(Feature::PromptWeighting);
    let worker = Worker::with(generator, 8, Retention::default()).await;
    let prompt = "a {red|green|blue|black|white} {cat|dog|horse|fish}";
    let mut operation = Operation::generate(prompt);
    operation.common_mut().unwrap().seed = Some(41);
    operation.common_mut().unwrap().num_images = 3;
    let story = worker.story(&worker.accept(operation)).await;
    let JobEvent::Complete { images, .. } = story.last() else { panic!("{story:?}") };
    let mut chosen = Vec::new();
    for (image, seed) in images.iter().zip(41..) {
        let texts = texts(image.image.bytes());
        let again: Operation = serde_json::from_str(&texts[1].1).unwrap();
        let told = again.common().unwrap().prompt.clone();
        assert_eq!(told, resolve_wildcards(prompt, seed));
        // What is told is made again as it is.
        assert_eq!((again.common().unwrap().seed, again.common().unwrap().num_images), (Some(seed), 1));
        assert_eq!(resolve_wildcards(&told, seed), told);
        assert!(texts[0].1.starts_with(&format!("{told}\n")), "{}", texts[0].1);
        chosen.push(told);
    }
    chosen.dedup();
    assert!(chosen.len() > 1, "all seeds chose the same: {chosen:?}");
}

#[tokio::test]
async fn metadata_can_be_left_out() {
    let images = files(|operation| operation.common_mut().unwrap().output.metadata = false).await;
    assert_eq!(texts(images[0].image.bytes()), []);
}

#[tokio::test]
async fn every_image_has_its_own_seed_also_past_the_last() {
    let images = files(|operation| {
        operation.common_mut().unwrap().num_images = 3;
        operation.common_mut().unwrap().seed = Some(u64::MAX - 1);
    })
    .await;
    assert_eq!(images.iter().map(|image| image.seed).collect::<Vec<_>>(), [u64::MAX - 1, u64::MAX, 0]);
    let shade =
        |index: usize| image::load_from_memory(images[index].image.bytes()).unwrap().into_rgb8()[(0, 0)][0];
    assert_eq!([shade(0), shade(1), shade(2)], [254, 255, 0]);
}

#[tokio::test]
async fn formats_are_as_asked_for() {
    for (format, magic) in [
        (ImageFormat::Png, &b"\x89PNG"[..]),
        (ImageFormat::Jpeg, b"\xff\xd8\xff"),
        (ImageFormat::Webp, b"RIFF"),
    ] {
        let images = files(|operation| operation.common_mut().unwrap().output.format = format).await;
        assert_eq!(images[0].format, format);
        assert!(images[0].image.bytes().starts_with(magic), "{format}");
    }
}
