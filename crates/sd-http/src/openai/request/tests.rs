use bytes::Bytes;
use operations_contract::PreviewMethod;
use serde_json::Map;

use super::*;

fn model() -> ModelCapabilities {
    ModelCapabilities {
        previews: vec![PreviewMethod::LatentRgb, PreviewMethod::Vae],
        ..ModelCapabilities::text_to_image("test", "test")
    }
}

fn fields(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// A PNG of four pixels with these alphas.
fn png(alphas: [u8; 4]) -> Bytes {
    let image = image::RgbaImage::from_fn(2, 2, |x, y| image::Rgba([9, 9, 9, alphas[(2 * y + x) as usize]]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner().into()
}

/// What of an operation differs from one that says nothing.
fn told(parsed: &ParsedOperation) -> Value {
    let operation = parsed.operation.as_ref().unwrap();
    let mut told = serde_json::to_value(operation).unwrap();
    let kind = told["operation"].clone();
    let mut silent = serde_json::to_value(Operation::generate("")).unwrap();
    silent.as_object_mut().unwrap().remove("prompt");
    told.as_object_mut().unwrap().retain(|name, value| silent.get(name) != Some(value));
    told["operation"] = kind;
    told
}

fn generation(value: Value) -> (ParsedOperation, Asked) {
    translate(Call::Generations, Form { fields: fields(value), ..Form::default() }, Some(&model()))
}

#[test]
fn every_field_of_a_generation_has_its_place() {
    for (sent, means) in [
        (json!({}), json!({})),
        (json!({"n": 3}), json!({"num_images": 3})),
        (json!({"model": "test"}), json!({"model": "test"})),
        (json!({"size": "64x128"}), json!({"width": 64, "height": 128})),
        (json!({"size": "auto"}), json!({})),
        (
            json!({"output_format": "webp"}),
            json!({"output": {"format": "webp", "quality": 90, "metadata": true}}),
        ),
        (
            json!({"output_format": "webp", "output_compression": 100}),
            json!({"output": {"format": "webp", "quality": 90, "metadata": true}}),
        ),
        (
            json!({"output_format": "jpeg"}),
            json!({"output": {"format": "jpeg", "quality": 100, "metadata": true}}),
        ),
        (
            json!({"output_format": "jpeg", "output_compression": 0}),
            json!({"output": {"format": "jpeg", "quality": 1, "metadata": true}}),
        ),
        (
            json!({"output_format": "jpeg", "output_compression": 75, "output": {"metadata": false}}),
            json!({"output": {"format": "jpeg", "quality": 75, "metadata": false}}),
        ),
        // Hints, and what is about the account.
        (
            json!({"quality": "hd", "style": "vivid", "moderation": "low", "complexity": "high", "user": "u"}),
            json!({}),
        ),
        (json!({"background": "opaque", "n": null, "size": null, "stream": null, "svg": null}), json!({})),
        // Ours, as they are.
        (
            json!({"seed": 7, "steps": 4, "guidance_scale": 1.5, "negative_prompt": "no", "sampler": "ddim"}),
            json!({"seed": 7, "steps": 4, "guidance_scale": 1.5, "negative_prompt": "no", "sampler": "ddim"}),
        ),
        (json!({"stream": true, "partial_images": 0}), json!({})),
        (
            json!({"stream": true, "partial_images": 2}),
            json!({"preview": {"every": 6, "method": "latent_rgb", "max_side": 512}}),
        ),
        (
            json!({"stream": true, "partial_images": 3, "steps": 4}),
            json!({"steps": 4, "preview": {"every": 1, "method": "latent_rgb", "max_side": 512}}),
        ),
        (
            json!({"stream": true, "partial_images": 3, "preview": {"every": 2, "method": "vae", "max_side": 64}}),
            json!({"preview": {"every": 2, "method": "vae", "max_side": 64}}),
        ),
    ] {
        let mut body = sent.clone();
        body["prompt"] = "a cat".into();
        let (parsed, _) = generation(body);
        assert_eq!(parsed.faults, [], "{sent}");
        let mut means = means;
        means["operation"] = "image_generation".into();
        means["prompt"] = "a cat".into();
        assert_eq!(told(&parsed), means, "{sent}");
    }
}

#[test]
fn what_cannot_be_done_is_refused_by_its_name() {
    for (sent, field) in [
        (json!({"n": 9}), "num_images"),
        (json!({"prompt": ""}), "prompt"),
        (json!({"prompt": " \n"}), "prompt"),
        (json!({"size": "big"}), "size"),
        (json!({"size": "64x64", "width": 64}), "size"),
        (json!({"size": 64}), "size"),
        (json!({"quality": "best"}), "quality"),
        (json!({"style": "loud"}), "style"),
        (json!({"background": "transparent"}), "background"),
        (json!({"output_format": "gif"}), "output_format"),
        (json!({"output_compression": 50}), "output_compression"),
        (json!({"output_format": "webp", "output_compression": 50}), "output_compression"),
        (json!({"output_format": "jpeg", "output_compression": 101}), "output_compression"),
        (json!({"output_format": "jpeg", "output": {"format": "png"}}), "output_format"),
        (json!({"response_format": "file"}), "response_format"),
        (json!({"response_format": "url", "stream": true}), "response_format"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"stream": true, "partial_images": 4}), "partial_images"),
        (json!({"frame_count": 4}), "frame_count"),
        (json!({"svg": {"model": "x"}}), "svg"),
        (json!({"user": 7}), "user"),
        (json!({"colour": "red"}), "colour"),
        (json!({"operation": "image_inpaint"}), "operation"),
    ] {
        let mut body = json!({"prompt": "a cat"});
        body.as_object_mut().unwrap().extend(fields(sent.clone()));
        let (parsed, _) = generation(body);
        let broken: Vec<&str> = parsed.faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(broken, [field], "{sent}");
    }
    // All at once.
    let (parsed, _) = generation(json!({"n": 0, "size": "x", "svg": 1}));
    let broken: Vec<&str> = parsed.faults.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(broken, ["svg", "size", "prompt", "num_images"]);
}

#[test]
fn an_edit_repaints_what_is_fully_transparent() {
    let edit = |images: Vec<Bytes>, mask: Option<Bytes>| {
        let form = Form { fields: fields(json!({"prompt": "a cat", "strength": 0.5})), images, mask };
        translate(Call::Edits, form, Some(&model())).0
    };
    let (opaque, holed) = (png([255; 4]), png([0, 1, 254, 255]));
    let whole = edit(vec![opaque.clone()], None);
    assert_eq!((whole.faults.len(), told(&whole)["operation"].as_str()), (0, Some("image_transform")));
    for parsed in [edit(vec![opaque.clone()], Some(holed.clone())), edit(vec![holed.clone()], None)] {
        assert_eq!(parsed.faults, []);
        let Some(Operation::ImageInpaint(request)) = parsed.operation else { panic!("no inpaint") };
        assert_eq!(request.strength, 0.5);
        let mask = image::load_from_memory(request.mask_image.bytes()).unwrap().into_luma8();
        assert_eq!(mask.into_raw(), [255, 0, 0, 0]);
    }
    let faults =
        |parsed: ParsedOperation| parsed.faults.into_iter().map(|fault| fault.field).collect::<Vec<_>>();
    for mask in [opaque.clone(), "no picture".into(), Bytes::new()] {
        assert_eq!(faults(edit(vec![opaque.clone()], Some(mask))), ["mask"]);
    }
    assert_eq!(faults(edit(vec![opaque.clone(), opaque], None)), ["image"]);
    assert_eq!(faults(edit(Vec::new(), None)), ["init_image"]);
}

#[test]
fn a_variation_needs_a_picture_only() {
    let variation = |body: Value| {
        let form = Form { fields: fields(body), images: vec![png([255; 4])], mask: None };
        let (parsed, _) = translate(Call::Variations, form, Some(&model()));
        assert_eq!(parsed.faults, []);
        let mut told = told(&parsed);
        assert!(told["init_image"].as_str().is_some_and(|image| !image.is_empty()));
        told.as_object_mut().unwrap().remove("init_image");
        told
    };
    assert_eq!(
        variation(json!({"n": 2, "size": "256x256"})),
        json!({"operation": "image_transform", "prompt": "a picture", "guidance_scale": 1.0, "strength": 0.6,
               "num_images": 2, "width": 256, "height": 256})
    );
    assert_eq!(
        variation(json!({"prompt": "a cat", "strength": 0.2})),
        json!({"operation": "image_transform", "prompt": "a cat", "strength": 0.2})
    );
}

#[test]
fn the_answer_is_as_it_was_asked_for() {
    let (_, asked) =
        generation(json!({"prompt": "x", "user": "a", "safety_identifier": "", "quality": "low"}));
    assert_eq!((asked.urls, asked.stream, asked.quality.as_str()), (false, false, "low"));
    assert_eq!(asked.identifier.as_deref(), Some("a"));
    let (_, asked) =
        generation(json!({"prompt": "x", "user": "a", "safety_identifier": "b", "response_format": "url"}));
    assert_eq!((asked.urls, asked.identifier.as_deref(), asked.quality.as_str()), (true, Some("b"), "auto"));
}
