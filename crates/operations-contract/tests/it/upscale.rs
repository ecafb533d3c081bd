//! `image_upscale`: the operation without a prompt.

use operations_contract::{ImageUpscale, Operation, OperationKind};
use serde_json::{Value, json};

const HELLO: &str = "aGVsbG8=";

fn told(field: &str, value: Value) -> String {
    let mut request = json!({"operation": "image_upscale", "image": HELLO});
    request[field] = value;
    Operation::from_json(&request).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn a_picture_is_enough() {
    let operation = Operation::from_json(&json!({"operation": "image_upscale", "image": HELLO})).unwrap();
    assert_eq!((operation.kind(), operation.common()), (OperationKind::ImageUpscale, None));
    let Operation::ImageUpscale(request) = operation else { panic!("no upscale") };
    assert_eq!(request.image.bytes(), b"hello");
    assert_eq!(ImageUpscale { image: Default::default(), ..request }, ImageUpscale::default());

    let missing = Operation::from_json(&json!({"operation": "image_upscale"})).unwrap_err();
    assert_eq!(missing.to_string(), "image: is required");
}

#[test]
fn it_has_no_fields_of_those_that_draw() {
    for field in ["prompt", "seed", "steps", "init_image", "sampler"] {
        let message = told(field, json!("x"));
        assert!(message.starts_with(&format!("{field}: is no field of image_upscale; known:")), "{message}");
    }
}

#[test]
fn its_fields_have_bounds() {
    for (field, value, message) in [
        ("scale", json!(0.5), "scale: 0.5 is outside 1..=8"),
        ("scale", json!(8.5), "scale: 8.5 is outside 1..=8"),
        ("scale", json!("4"), "scale: must be a number, not a text"),
        ("tile", json!(31), "tile: 31 is outside 32..=1024"),
        ("tile", json!(1025), "tile: 1025 is outside 32..=1024"),
        ("tile", json!(60), "margin: 16 is outside 0..=15"),
        ("margin", json!(49), "margin: 49 is outside 0..=48"),
        ("model", json!(" "), "model: is empty"),
        ("output", json!({"quality": 0}), "output.quality: 0 is outside 1..=100"),
        ("deadline_ms", json!(0), "deadline_ms: 0 is outside 1..=86400000"),
        ("scale", json!(8), ""),
        ("margin", json!(48), ""),
        ("tile", json!(1024), ""),
    ] {
        assert_eq!(told(field, value.clone()), message, "{field} {value}");
    }
}
