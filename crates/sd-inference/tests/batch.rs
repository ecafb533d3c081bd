//! The law of continuous batching: generations that are advanced together, each at another step, joining and leaving between
//! steps, give the bytes that each gives alone.

#![allow(clippy::unwrap_used)]

mod support;

use image::RgbImage;
use sd_inference::{Generation, GenerationRequest, InitImage, InitMask, Pipeline, Seamless, Step, advance};

use support::{FAMILIES, images, inpainting_model, pipeline};

/// Advances all together until each is done; generation `k` joins at round `k`.
fn together(pipeline: &Pipeline, requests: &[GenerationRequest]) -> Vec<Vec<RgbImage>> {
    let mut joined: Vec<Generation> = Vec::new();
    let mut waiting = requests.iter();
    let mut steps = vec![0; requests.len()];
    loop {
        let newcomer = waiting.next().map(|request| pipeline.begin(request).unwrap());
        let more = newcomer.is_some();
        joined.extend(newcomer);
        let mut all: Vec<&mut Generation> = joined.iter_mut().collect();
        let results: Vec<Option<Step>> = advance(&mut all).into_iter().map(Result::unwrap).collect();
        for (k, step) in results.iter().enumerate().filter_map(|(k, step)| Some((k, (*step)?))) {
            steps[k] += 1;
            assert_eq!(step.index, steps[k], "generation {k}");
            assert_eq!(step.index, joined[k].steps_taken());
        }
        if !more && results.iter().all(Option::is_none) {
            break;
        }
    }
    let finished = joined.into_iter().map(|generation| generation.finish().unwrap());
    finished.map(|finished| finished.images.into_iter().map(|(image, _)| image).collect()).collect()
}

fn check(pipeline: &Pipeline, requests: &[GenerationRequest]) {
    for (k, (request, found)) in requests.iter().zip(together(pipeline, requests)).enumerate() {
        assert!(images(pipeline, request) == found, "generation {k} gave other bytes than alone");
    }
}

fn request(prompt: &str, sampler: &str, steps: usize, seed: u64) -> GenerationRequest {
    let sampler = Some(sampler.parse().unwrap());
    GenerationRequest { sampler, steps: Some(steps), seed, ..GenerationRequest::new(prompt) }
}

#[test]
fn each_gets_the_bytes_that_it_gets_alone() {
    for family in FAMILIES {
        let requests = [
            request("a red circle on green grass", "euler", 5, 1),
            request("a blue square on sand", "dpmpp_2m", 3, 2),
            GenerationRequest { guidance_scale: Some(1.0), ..request("a star", "euler_a", 4, 3) },
            GenerationRequest { num_images: 2, ..request("two stars", "ddim", 2, 4) },
        ];
        check(&pipeline(family, "model"), &requests);
    }
}

#[test]
fn what_has_another_shape_goes_its_own_way() {
    let image = RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8 * 3, y as u8 * 3, 90]));
    let mask = image::GrayImage::from_fn(64, 64, |x, _| image::Luma([if x < 32 { 255 } else { 0 }]));
    let init = InitImage { image, strength: 0.6, mask: Some(InitMask { mask, blur: 0, padding: None }) };
    let large = GenerationRequest { width: Some(64), height: Some(64), ..request("a circle", "euler", 4, 1) };
    let requests = [
        large.clone(),
        GenerationRequest { width: Some(40), height: Some(72), ..large.clone() },
        GenerationRequest { seamless: Seamless { x: true, y: false }, seed: 5, ..large.clone() },
        GenerationRequest { init: Some(init.clone()), seed: 6, ..large.clone() },
        GenerationRequest { seed: 7, ..large.clone() },
    ];
    check(&pipeline("sd15", "model"), &requests);

    let inpaints = [1, 2].map(|seed| GenerationRequest { init: Some(init.clone()), seed, ..large.clone() });
    let (_folder, made_for_it) = inpainting_model("StableDiffusionInpaintPipeline");
    check(&made_for_it, &inpaints);
}

#[test]
fn none_and_finished_ones_are_no_trouble() {
    assert!(advance(&mut []).is_empty());
    let pipeline = pipeline("sd15", "model");
    let mut only = pipeline.begin(&request("a circle", "euler", 1, 1)).unwrap();
    assert!(advance(&mut [&mut only])[0].as_ref().unwrap().is_some());
    assert!(advance(&mut [&mut only])[0].as_ref().unwrap().is_none());
}
