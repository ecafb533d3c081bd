//! Image-to-image and inpainting with the demonstration model: the changed picture shows what the new prompt says, as the
//! checker of `tools/demo-model` sees it in the pixels.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::{Path, PathBuf};

use image::{GrayImage, Luma, RgbImage};
use sd_inference::{GenerationRequest, InitImage, InitMask, LoadOptions, ModelSource, Pipeline};

#[allow(dead_code, reason = "each test file uses its part")]
#[path = "support/demo_checker.rs"]
mod demo_checker;

use demo_checker::{References, Seen, look};

struct Demo {
    pipeline: Pipeline,
    references: References,
}

impl Demo {
    fn load() -> Self {
        let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
        let references = std::fs::read_to_string(folder.join("eval.json")).unwrap();
        Self {
            pipeline: Pipeline::load(&ModelSource::folder(folder).unwrap(), &LoadOptions::default()).unwrap(),
            references: serde_json::from_str(&references).unwrap(),
        }
    }

    fn draw(&self, prompt: &str, seed: u64, init: Option<InitImage>) -> RgbImage {
        let request = GenerationRequest { seed, init, ..GenerationRequest::new(prompt) };
        let mut generation = self.pipeline.begin(&request).unwrap();
        while generation.step().unwrap().is_some() {}
        generation.finish().unwrap().images.remove(0).0
    }

    fn look(&self, picture: &RgbImage) -> Seen {
        let (width, height) = picture.dimensions();
        look(picture.as_raw(), width as usize, height as usize, &self.references)
    }
}

/// Whether the picture shows this colour, shape and ground.
fn shows(seen: &Seen, colour: &str, shape: &str, ground: &str) -> bool {
    seen.ground == ground && seen.colour.as_deref() == Some(colour) && seen.shape.as_deref() == Some(shape)
}

/// Colour, shape and ground of a picture, and what image-to-image makes of them.
const CHANGES: [[&str; 6]; 4] = [
    ["red", "circle", "sand", "blue", "circle", "sand"],
    ["yellow", "square", "grass", "purple", "square", "grass"],
    ["red", "heart", "snow", "pink", "heart", "water"],
    ["blue", "circle", "stone", "yellow", "star", "stone"],
];

#[test]
fn image_to_image_gives_what_the_prompt_says() {
    let demo = Demo::load();
    let prompt = |colour, shape, ground| format!("a large {colour} {shape} in the center on {ground}");
    for [colour, shape, ground, new_colour, new_shape, new_ground] in CHANGES {
        let before = demo.draw(&prompt(colour, shape, ground), 4, None);
        let seen = demo.look(&before);
        assert!(shows(&seen, colour, shape, ground), "the picture to begin from: {seen:?}");
        let init = InitImage { image: before, strength: 0.8, mask: None };
        let seen = demo.look(&demo.draw(&prompt(new_colour, new_shape, new_ground), 5, Some(init)));
        println!("{colour} {shape} on {ground} becomes {seen:?}");
        assert!(
            shows(&seen, new_colour, new_shape, new_ground),
            "wanted {new_colour} {new_shape} on {new_ground}"
        );
    }
}

/// The corner, its words, and the corner's place in the picture: -1 left or top, 1 right or bottom.
const CORNERS: [(&str, [i8; 2]); 2] = [("bottom right", [1, 1]), ("top left", [-1, -1])];

#[test]
fn inpainting_fills_the_mask_with_what_the_prompt_says_and_keeps_the_rest() {
    let demo = Demo::load();
    for (corner, place) in CORNERS {
        let prompt = |colour| format!("a medium {colour} circle in the {corner} corner on sand");
        let before = demo.draw(&prompt("red"), 4, None);
        let seen = demo.look(&before);
        assert!(shows(&seen, "red", "circle", "sand"), "the picture to begin from: {seen:?}");
        // Three quarters of each side, from the corner.
        let (width, height) = before.dimensions();
        let marked = |x: u32, y: u32| {
            let within = |at: u32, length: u32, side: i8| {
                if side > 0 { 4 * at >= length } else { 4 * at < 3 * length }
            };
            within(x, width, place[0]) && within(y, height, place[1])
        };
        let mask = GrayImage::from_fn(width, height, |x, y| Luma([if marked(x, y) { 255 } else { 0 }]));
        let mask = Some(InitMask { mask, blur: 0, padding: None });
        let init = InitImage { image: before.clone(), strength: 1.0, mask };
        let after = demo.draw(&prompt("blue"), 5, Some(init));
        let seen = demo.look(&after);
        println!("{corner}: {seen:?}");
        assert!(shows(&seen, "blue", "circle", "sand") && seen.position == Some(place), "{seen:?}");
        let kept =
            after.enumerate_pixels().all(|(x, y, pixel)| marked(x, y) || pixel == before.get_pixel(x, y));
        assert!(kept, "{corner}: a pixel outside of the mask changed");
    }
}
