//! What bad input gets: every broken field by name, at once.

use operations_contract::{Common, FieldError, ImageGeneration, Lora, Operation, bounds};
use serde_json::{Value, json};

const PIXEL: &str = "aGVsbG8=";

fn faults(value: Value) -> Vec<FieldError> {
    Operation::from_json(&value).expect_err("must be refused").into_fields()
}

/// The only fault of a generation with one more field.
fn fault(field: &str, value: Value) -> FieldError {
    let mut request = json!({"operation": "image_generation", "prompt": "a cat"});
    request[field] = value;
    let mut faults = faults(request);
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults.remove(0)
}

#[test]
fn what_is_no_object_is_refused() {
    for (value, kind) in
        [(json!([]), "a list"), (json!("x"), "a text"), (json!(1), "a number"), (Value::Null, "null")]
    {
        let faults = faults(value);
        assert_eq!(faults[0].field, "body");
        assert_eq!(faults[0].message, format!("must be a JSON object, not {kind}"));
    }
}

#[test]
fn operation_must_be_a_known_one() {
    assert_eq!(faults(json!({"prompt": "x"}))[0].to_string(), "operation: is required");
    let unknown = &faults(json!({"operation": "image_dream", "prompt": "x"}))[0];
    assert_eq!(unknown.field, "operation");
    assert_eq!(unknown.value, Some(json!("image_dream")));
    assert!(
        unknown.message.contains("image_generation, image_transform, image_inpaint, image_upscale"),
        "{unknown}"
    );
    assert!(faults(json!({"operation": 7}))[0].message.contains("must be a name, not a number"));
}

#[test]
fn every_broken_field_is_told_at_once() {
    let faults = faults(json!({
        "operation": "image_inpaint",
        "prompt": 7,
        "steps": 0,
        "guidance_scale": 31,
        "seed": -1,
        "sampler": "magic",
        "width": "wide",
        "num_images": 9,
        "loras": [{"name": "ok"}, {"scale": 11, "weight": 1}],
        "tiling": {"z": true},
        "output": {"format": "bmp", "quality": 0},
        "init_image": "***",
        "strength": 1.5,
        "colour": "red",
    }));
    let mut fields: Vec<&str> = faults.iter().map(|f| f.field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "colour",
            "guidance_scale",
            "init_image",
            "loras[1].name",
            "loras[1].scale",
            "loras[1].weight",
            "mask_image",
            "num_images",
            "output.format",
            "output.quality",
            "prompt",
            "sampler",
            "seed",
            "steps",
            "strength",
            "tiling.z",
            "width",
        ]
    );
}

#[test]
fn a_number_out_of_range_is_told_with_value_and_limit() {
    let steps = fault("steps", json!(0));
    assert_eq!((steps.value, steps.limit.as_deref()), (Some(json!(0)), Some("1..=150")));
    assert_eq!(steps.message, "0 is outside 1..=150");
    assert_eq!(fault("steps", json!(151)).message, "151 is outside 1..=150");
    // Beyond what the field's own type can hold.
    assert_eq!(fault("steps", json!(5_000_000_000_u64)).message, "5000000000 is outside 1..=150");
    assert_eq!(fault("steps", json!(-3)).message, "-3 is outside 1..=150");
    assert_eq!(fault("guidance_scale", json!(-0.5)).message, "-0.5 is outside 0..=30");
    let seed: Value = serde_json::from_str("18446744073709551616").unwrap();
    assert!(fault("seed", seed).message.ends_with("is outside 0..=18446744073709551615"));
}

#[test]
fn a_part_of_the_run_has_an_end_after_its_start() {
    let interval = |start: f64, end: f64| {
        let mut request = json!({"operation": "image_generation", "prompt": "a cat"});
        request["guidance_interval"] = json!({"start": start, "end": end});
        Operation::from_json(&request).map_err(|error| error.into_fields().remove(0))
    };
    assert!(interval(0.0, 1.0).is_ok());
    assert_eq!(interval(0.5, 0.5).unwrap_err().message, "0.5 is not after start, 0.5");
    assert_eq!(interval(-0.5, 0.5).unwrap_err().field, "guidance_interval.start");
    assert_eq!(interval(0.5, 1.5).unwrap_err().field, "guidance_interval.end");
    assert_eq!(fault("guidance_rescale", json!(1.1)).message, "1.1 is outside 0..=1");
    assert_eq!(fault("eta", json!(-0.1)).message, "-0.1 is outside 0..=1");
}

#[test]
fn the_bounds_themselves_are_inside() {
    for (field, value) in [
        ("steps", json!(1)),
        ("steps", json!(150)),
        ("guidance_scale", json!(0)),
        ("guidance_scale", json!(30.0)),
        ("seed", json!(u64::MAX)),
        ("width", json!(*bounds::SIDE.start())),
        ("height", json!(*bounds::SIDE.end())),
        ("num_images", json!(8)),
        ("deadline_ms", json!(1)),
    ] {
        let mut request = json!({"operation": "image_generation", "prompt": "a cat"});
        request[field] = value;
        Operation::from_json(&request).unwrap_or_else(|error| panic!("{field}: {error}"));
    }
}

#[test]
fn wrong_types_are_told_by_name() {
    assert_eq!(fault("steps", json!("20")).message, "must be a whole number, not a text");
    assert_eq!(fault("steps", json!(20.5)).message, "must be a whole number, not a number with a fraction");
    assert_eq!(fault("prompt_weighting", json!(1)).message, "must be true or false, not a number");
    assert_eq!(fault("guidance_scale", json!("NaN")).message, "must be a number, not a text");
    assert_eq!(fault("loras", json!({})).message, "must be a list, not an object");
    assert_eq!(fault("loras", json!(["x"])).field, "loras[0]");
    assert_eq!(fault("output", json!("png")).message, "must be an object, not a text");
    assert_eq!(fault("negative_prompt", json!(["x"])).message, "must be a text, not a list");
}

#[test]
fn nan_and_infinity_in_a_typed_operation_are_refused() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let common = Common { prompt: "a cat".into(), guidance_scale: Some(bad), ..Common::default() };
        let faults =
            Operation::ImageGeneration(ImageGeneration { common }).validate().unwrap_err().into_fields();
        assert_eq!(faults[0].field, "guidance_scale");
        assert_eq!(faults[0].value, Some(json!(bad.to_string())));
    }
}

#[test]
fn typed_operations_meet_the_same_bounds() {
    let mut operation = Operation::generate("a".repeat(10_001));
    let common = operation.common_mut().unwrap();
    common.steps = Some(0);
    common.loras = vec![Lora { name: String::new(), scale: f64::NAN }];
    let error = operation.validate().unwrap_err();
    let fields: Vec<&str> = error.fields().iter().map(|f| f.field.as_str()).collect();
    assert_eq!(fields, ["prompt", "steps", "loras[0].name", "loras[0].scale"]);
    assert_eq!(Operation::generate("a cat").validate(), Ok(()));
    assert_eq!(Operation::generate("").validate(), Ok(()));
}

#[test]
fn an_unknown_name_comes_with_those_that_are_known() {
    let sampler = fault("sampler", json!("dpm++"));
    assert!(sampler.message.starts_with("`dpm++` is no sampler; known: ddim, ddpm"), "{sampler}");
    assert!(fault("schedule", json!("linear")).message.contains("align_your_steps"));
    assert!(fault("rng", json!("cuda")).message.contains("torch_cpu, philox"));
    assert!(fault("priority", json!("urgent")).message.contains("low, normal, high"));
}

#[test]
fn a_field_of_another_operation_is_unknown() {
    assert!(fault("strength", json!(0.5)).message.starts_with("is no field of image_generation; known: "));
    let faults = faults(json!({
        "operation": "image_transform", "prompt": "x", "init_image": PIXEL, "mask_image": PIXEL,
    }));
    assert_eq!(faults[0].field, "mask_image");
}

#[test]
fn required_images_are_required() {
    let transform = faults(json!({"operation": "image_transform", "prompt": "x"}));
    assert_eq!(transform[0].to_string(), "init_image: is required");
    let inpaint = faults(json!({"operation": "image_inpaint", "prompt": "x", "init_image": ""}));
    let told: Vec<String> = inpaint.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["init_image: is empty", "mask_image: is required"]);
}

/// A mask, the alpha channel or a larger canvas: one at least, and no two that contradict each other.
#[test]
fn what_is_repainted_must_be_clear() {
    let told = |field: &str, value: Value, mask: Option<&str>| {
        let mut request = json!({"operation": "image_inpaint", "prompt": "x", "init_image": PIXEL});
        request[field] = value;
        if let Some(mask) = mask {
            request["mask_image"] = mask.into();
        }
        Operation::from_json(&request).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(told("mask_from_alpha", json!(true), None), "");
    assert_eq!(told("extend", json!({"left": 1}), None), "");
    assert_eq!(told("extend", json!({"left": 1}), Some(PIXEL)), "");
    assert_eq!(told("mask_from_alpha", json!(false), None), "mask_image: is required");
    assert_eq!(
        told("mask_from_alpha", json!(true), Some(PIXEL)),
        "mask_from_alpha: takes the place of mask_image: send one of them"
    );
    assert!(told("extend", json!({}), None).starts_with("extend: extends no side"));
    assert_eq!(told("extend", json!({"top": 2049}), None), "extend.top: 2049 is outside 0..=2048");
    assert!(told("extend", json!({"up": 8}), None).starts_with("extend.up: is no field"));
    assert_eq!(
        told("extend", json!({"right": 8, "overlap": 257}), None),
        "extend.overlap: 257 is outside 0..=256"
    );
}

#[test]
fn images_are_not_fetched() {
    let faults =
        faults(json!({"operation": "image_transform", "prompt": "x", "init_image": "http://10.0.0.1/a.png"}));
    assert!(faults[0].message.contains("is an address"), "{}", faults[0]);
}

#[test]
fn both_names_of_the_input_image_at_once_are_refused() {
    let faults = faults(json!({
        "operation": "image_transform", "prompt": "x", "init_image": PIXEL, "input_image": PIXEL,
    }));
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["input_image: is another name of init_image: send one of them"]);
}

#[test]
fn long_values_are_not_echoed_whole() {
    let long = fault("sampler", json!("x".repeat(100_000)));
    assert!(serde_json::to_string(&long).unwrap().len() < 1000);
    let prompt = fault("negative_prompt", json!("y".repeat(bounds::MAX_PROMPT_CHARS + 1)));
    assert_eq!(prompt.limit.as_deref(), Some("10000"));
    assert!(serde_json::to_string(&prompt).unwrap().len() < 1000);
}

#[test]
fn too_many_entries_are_refused() {
    let many: Vec<Value> = (0..17).map(|n| json!({"name": format!("l{n}")})).collect();
    assert_eq!(fault("loras", json!(many)).message, "has 17 entries; at most 16 are allowed");
}

#[test]
fn guess_mode_is_about_control_images() {
    assert_eq!(fault("guess_mode", json!(true)).field, "guess_mode");
    let control = json!([{"kind": "canny", "image": PIXEL, "preprocess": "cany"}]);
    let unknown = fault("control", control);
    assert_eq!(unknown.field, "control[0].preprocess");
    assert!(unknown.message.contains("lineart"), "{}", unknown.message);
}

#[test]
fn control_must_end_after_it_starts() {
    let control = json!([{"kind": "canny", "image": PIXEL, "start": 0.5, "end": 0.5}]);
    assert_eq!(fault("control", control).field, "control[0].end");
}
