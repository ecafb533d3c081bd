//! Runs that ControlNets steer against the pictures that diffusers made (`fixtures/<family>/controls.json`, made by
//! `tools/reference`), and their laws.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../../sd-models/tests/support/controlnet.rs"]
mod nets;
mod support;

use image::{DynamicImage, RgbImage};
use sd_inference::{
    Control, ControlNet, Error, GenerationRequest, Hires, InitImage, InitMask, LoadOptions, MemoryLimit,
    ModelSource, Pipeline, Upscaler, VaeTiling,
};
use serde_json::Value;

use support::{FAMILIES, TOLERANCE, fixtures, images, largest_difference, pipeline, request, runs};

/// What may differ where pictures are scaled: PIL rounds to bytes between the two directions of its filter, and the
/// model makes more of that.
const SCALED_TOLERANCE: u8 = 8;

fn load(pipeline: &Pipeline, family: &str, name: &str) -> ControlNet {
    let folder = tempfile::tempdir().unwrap();
    nets::folder(&fixtures(family), name, folder.path());
    pipeline.load_controlnet(folder.path()).unwrap()
}

fn picture(family: &str, file: &Value) -> DynamicImage {
    image::open(fixtures(family).join(file.as_str().unwrap())).unwrap()
}

fn controls(run: &Value, family: &str, net: impl Fn(&str) -> ControlNet) -> Vec<Control> {
    let number = |field: &str, index: usize| run[field][index].as_f64().unwrap();
    let names = run["nets"].as_array().unwrap().iter().enumerate();
    names
        .map(|(index, name)| Control {
            net: net(name.as_str().unwrap()),
            image: picture(family, &run["controls"][index]).to_rgb8(),
            conditioning_scale: number("scale", index),
            start: number("start", index),
            end: number("end", index),
        })
        .collect()
}

fn init(run: &Value, family: &str) -> Option<InitImage> {
    let image = run["init"].is_string().then(|| picture(family, &run["init"]).to_rgb8())?;
    let padding = run["padding"].as_u64().map(|padding| padding as u32);
    let mask = run["mask"].is_string().then(|| InitMask {
        mask: picture(family, &run["mask"]).to_luma8(),
        blur: 0,
        padding,
    });
    Some(InitImage { image, strength: run["strength"].as_f64().unwrap(), mask })
}

#[test]
fn the_same_seed_gives_the_reference_picture() {
    let (_folder, own) = support::inpainting_model("StableDiffusionPipeline");
    for family in FAMILIES {
        let plain = pipeline(family, "model");
        for run in runs(family, "controls.json") {
            let pipeline = if run["model"] == "model" { &plain } else { &own };
            let request = GenerationRequest {
                init: init(&run, family),
                controls: controls(&run, family, |name| load(pipeline, family, name)),
                guess_mode: run["guess_mode"].as_bool().unwrap(),
                ..request(&run)
            };
            let found = images(pipeline, &request);
            let files = run["files"].as_array().unwrap();
            assert_eq!(found.len(), files.len());
            let allowed = if run["control_size"].is_null() { TOLERANCE } else { SCALED_TOLERANCE };
            for (file, image) in files.iter().zip(&found) {
                let difference = largest_difference(&picture(family, file).to_rgb8(), image);
                println!("{family} {file}: largest difference {difference} of 255");
                assert!(difference <= allowed, "{family} {file}: differs by {difference} of 255");
            }
        }
    }
}

fn edges() -> RgbImage {
    RgbImage::from_fn(64, 64, |x, y| image::Rgb([if (x / 8 + y / 8) % 2 == 0 { 255 } else { 0 }; 3]))
}

fn steered(controls: Vec<Control>) -> GenerationRequest {
    GenerationRequest {
        width: Some(64),
        height: Some(64),
        steps: Some(4),
        // The model's own, pndm, evaluates the UNet once more than it has steps.
        sampler: Some("ddim".parse().unwrap()),
        seed: 7,
        controls,
        ..GenerationRequest::new("a red circle on green grass")
    }
}

/// A net that does not count is none, to the bit.
#[test]
fn without_strength_or_outside_its_share_a_net_changes_nothing() {
    for family in ["sd15", "sdxl"] {
        let pipeline = pipeline(family, "model");
        let control = Control::new(load(&pipeline, family, "net"), edges());
        let plain = images(&pipeline, &steered(Vec::new()));
        for guess_mode in [false, true] {
            let draw = |control: &Control| {
                images(&pipeline, &GenerationRequest { guess_mode, ..steered(vec![control.clone()]) })
            };
            assert_ne!(draw(&control), plain, "{family}: the net counts");
            assert_eq!(draw(&Control { conditioning_scale: 0.0, ..control.clone() }), plain, "{family}");
            // No step of four lies within a share that is shorter than one.
            assert_eq!(draw(&Control { start: 0.3, end: 0.5, ..control.clone() }), plain, "{family}");
            assert_eq!(draw(&Control { start: 0.8, ..control.clone() }), plain, "{family}");
        }
    }
}

#[test]
fn an_image_of_several_is_the_image_of_its_own_seed() {
    let pipeline = pipeline("sd15", "model");
    let control = Control::new(load(&pipeline, "sd15", "net"), edges());
    for guess_mode in [false, true] {
        let sampler = Some("euler_a".parse().unwrap());
        let request =
            GenerationRequest { num_images: 3, sampler, guess_mode, ..steered(vec![control.clone()]) };
        for (k, image) in images(&pipeline, &request).iter().enumerate() {
            let seed = request.seed + k as u64;
            let alone = images(&pipeline, &GenerationRequest { seed, num_images: 1, ..request.clone() });
            assert_eq!(&alone[0], image, "image {k}");
        }
    }
}

/// Two nets with half the strength each are one with all of it, but for roundings.
#[test]
fn what_several_nets_say_is_added_up() {
    let pipeline = pipeline("sd15", "model");
    let control = Control::new(load(&pipeline, "sd15", "net"), edges());
    let half = Control { conditioning_scale: 0.5, ..control.clone() };
    let once = images(&pipeline, &steered(vec![control])).remove(0);
    let twice = images(&pipeline, &steered(vec![half.clone(), half])).remove(0);
    let difference = largest_difference(&once, &twice);
    assert!(difference <= TOLERANCE, "{difference} of 255");
}

#[test]
fn what_is_out_of_range_is_refused_with_its_field() {
    let pipeline = pipeline("sd15", "model");
    let control = Control::new(load(&pipeline, "sd15", "net"), edges());
    for (control, field) in [
        (Control { conditioning_scale: f64::NAN, ..control.clone() }, "controls.conditioning_scale"),
        (Control { start: -0.1, ..control.clone() }, "controls.start"),
        (Control { end: 1.5, ..control.clone() }, "controls.end"),
        (Control { start: 0.5, end: 0.5, ..control.clone() }, "controls.end"),
        (Control { image: RgbImage::new(0, 0), ..control.clone() }, "controls.image"),
    ] {
        let error = pipeline.begin(&steered(vec![control])).err().unwrap();
        assert!(matches!(error, Error::InvalidRequest { field: found, .. } if found == field), "{error}");
    }
    let other = support::pipeline("sd15", "model");
    let error = other.begin(&steered(vec![control])).err().unwrap().to_string();
    assert!(error.contains("controls.net") && error.contains("pipeline"), "{error}");
}

#[test]
fn a_net_of_another_family_is_refused() {
    let pipeline = pipeline("sd15", "model");
    let folder = tempfile::tempdir().unwrap();
    nets::folder(&fixtures("sdxl"), "net", folder.path());
    let error = pipeline.load_controlnet(folder.path()).err().unwrap().to_string();
    assert!(error.contains("config.json") && error.contains("as the model has it"), "{error}");
}

/// A net is counted while it is loaded, whether it takes part or not.
#[test]
fn nets_count_among_the_memory() {
    let source = ModelSource::folder(fixtures("sd15").join("model")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    nets::folder(&fixtures("sd15"), "net", folder.path());
    let pipeline = |side: usize, more: u64| {
        let vae_tiling = VaeTiling::Never;
        let options =
            LoadOptions { width: Some(side), height: Some(side), vae_tiling, ..LoadOptions::default() };
        let needed = Pipeline::estimate_memory(&source, &options).unwrap();
        let memory = MemoryLimit::Bytes(needed.total() + more);
        Pipeline::load(&source, &LoadOptions { memory, ..options }).unwrap()
    };
    let large = |controls: Vec<Control>| GenerationRequest {
        width: Some(256),
        height: Some(256),
        ..steered(controls)
    };

    // What is left for small pictures is less than a net takes.
    let error = pipeline(32, 0).load_controlnet(folder.path()).err().unwrap();
    assert!(matches!(error, Error::NotEnoughMemory { .. }), "{error}");
    assert!(error.to_string().contains("the ControlNet"), "{error}");

    let tight = pipeline(256, 10_000);
    let net = tight.load_controlnet(folder.path()).unwrap();
    let error = tight.begin(&large(Vec::new())).err().unwrap();
    assert!(matches!(error, Error::NotEnoughMemory { .. }), "{error}");
    drop(net);
    assert!(tight.begin(&large(Vec::new())).is_ok(), "a net that is dropped gives its memory back");

    let roomy = pipeline(256, 10_000_000);
    let net = roomy.load_controlnet(folder.path()).unwrap();
    assert!(roomy.begin(&large(vec![Control::new(net, edges())])).is_ok());
}

/// Generations that nets steer, at different steps, beside one that none does.
#[test]
fn generations_that_are_advanced_together_give_what_each_gives_alone() {
    for family in ["sd15", "sdxl"] {
        let pipeline = pipeline(family, "model");
        let control = Control::new(load(&pipeline, family, "net"), edges());
        let requests = [
            steered(vec![control.clone()]),
            steered(Vec::new()),
            GenerationRequest { seed: 9, ..steered(vec![Control { end: 0.5, ..control.clone() }]) },
            GenerationRequest { guess_mode: true, ..steered(vec![control]) },
        ];
        let alone: Vec<_> = requests.iter().map(|request| images(&pipeline, request)).collect();
        let mut running: Vec<_> = requests.iter().map(|request| pipeline.begin(request).unwrap()).collect();
        loop {
            let steps = sd_inference::advance(&mut running.iter_mut().collect::<Vec<_>>());
            if steps.into_iter().all(|step| step.unwrap().is_none()) {
                break;
            }
        }
        for (generation, alone) in running.into_iter().zip(alone) {
            let together: Vec<_> =
                generation.finish().unwrap().images.into_iter().map(|(image, _)| image).collect();
            assert_eq!(together, alone, "{family}");
        }
    }
}

/// A second pass is steered at its own size.
#[test]
fn control_pictures_count_in_a_second_pass() {
    let pipeline = pipeline("sd15", "model");
    let control = Control::new(load(&pipeline, "sd15", "net"), edges());
    let hires = Some(Hires { scale: 1.5, upscaler: Upscaler::Latent, strength: 0.5, steps: Some(6) });
    let draw = |controls: Vec<Control>| {
        images(&pipeline, &GenerationRequest { hires, ..steered(controls) }).remove(0)
    };
    let plain = draw(Vec::new());
    assert_eq!(plain.dimensions(), (96, 96));
    assert_eq!(draw(vec![Control { conditioning_scale: 0.0, ..control.clone() }]), plain);
    // The first pass takes four steps, the second three: only of those one lies within this share.
    assert_ne!(draw(vec![Control { start: 0.3, end: 0.7, ..control }]), plain);
}
