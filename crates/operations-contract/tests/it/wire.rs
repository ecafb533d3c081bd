//! Defaults, aliases and forms of what is valid.

use operations_contract::{
    ErrorBody, ErrorCode, ErrorDetail, GuidanceInterval, ImageFormat, Operation, OperationKind, Preprocessor,
    PreviewMethod, Priority, RngKind, Sampler, Schedule,
};
use serde_json::{Value, json};

const HELLO: &str = "aGVsbG8=";

fn parse(value: Value) -> Operation {
    Operation::from_json(&value).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn defaults_are_those_of_the_contract() {
    let operation = parse(json!({"operation": "image_generation", "prompt": "a cat"}));
    let common = operation.common().unwrap();
    assert_eq!(operation.kind(), OperationKind::ImageGeneration);
    assert_eq!((common.num_images, common.clip_skip, common.rng), (1, 0, RngKind::TorchCpu));
    assert_eq!((common.width, common.steps, common.guidance_scale, common.seed), (None, None, None, None));
    assert_eq!(common.negative_prompt, "");
    assert_eq!((common.output.format, common.output.metadata), (ImageFormat::Png, true));
    assert_eq!(common.priority, Priority::Normal);
    assert!(common.tiling.is_off() && common.preview.is_none() && common.deadline_ms.is_none());
}

#[test]
fn strength_differs_between_transform_and_inpaint() {
    let transform = parse(json!({"operation": "image_transform", "prompt": "x", "init_image": HELLO}));
    let Operation::ImageTransform(transform) = transform else { panic!("no transform") };
    assert_eq!(transform.strength, 0.8);
    let inpaint =
        parse(json!({"operation": "image_inpaint", "prompt": "x", "init_image": HELLO, "mask_image": HELLO}));
    let Operation::ImageInpaint(inpaint) = inpaint else { panic!("no inpaint") };
    assert_eq!((inpaint.strength, inpaint.mask_blur, inpaint.padding_mask_crop), (1.0, 0, None));
}

#[test]
fn input_image_is_another_name_and_data_urls_are_read() {
    let operation = parse(json!({
        "operation": "image_transform", "prompt": "x", "input_image": format!("data:image/png;base64,{HELLO}"),
    }));
    let Operation::ImageTransform(transform) = operation else { panic!("no transform") };
    assert_eq!(transform.init_image.bytes(), b"hello");
}

#[test]
fn null_is_absent() {
    let operation = parse(json!({
        "operation": "image_generation", "prompt": "x", "seed": null, "preview": null, "model": null,
    }));
    assert_eq!(operation, Operation::generate("x"));
}

#[test]
fn every_field_is_read() {
    let operation = parse(json!({
        "operation": "image_generation", "prompt": "a", "negative_prompt": "b", "prompt_2": "c", "negative_prompt_2": "d", "model": "m", "width": 640,
        "height": 512, "steps": 30, "guidance_scale": 5, "seed": u64::MAX, "sampler": "dpmpp_2m",
        "schedule": "karras", "num_images": 2, "clip_skip": 1, "prompt_weighting": false, "rng": "philox",
        "loras": [{"name": "l", "scale": -0.5}],
        "control": [{"kind": "canny", "image": HELLO, "strength": 0.5, "start": 0.1, "end": 0.9, "preprocess": "canny"}],
        "guess_mode": true,
        "tiling": {"x": true}, "preview": {"every": 5, "method": "taesd", "max_side": 128},
        "output": {"format": "jpeg", "quality": 70, "metadata": false}, "priority": "high", "deadline_ms": 1000,
        "cancel_on_disconnect": true, "hive_id": "h", "worker_id": "w", "guidance_rescale": 0.7, "guidance_interval": {"end": 0.8}, "eta": 1,
    }));
    let common = operation.common().unwrap();
    assert_eq!(common.seed, Some(u64::MAX));
    assert_eq!((common.width, common.height, common.steps), (Some(640), Some(512), Some(30)));
    assert_eq!((common.sampler, common.schedule), (Some(Sampler::Dpmpp2m), Some(Schedule::Karras)));
    assert_eq!(common.prompt_weighting, Some(false));
    assert_eq!((common.guidance_rescale, common.eta), (Some(0.7), Some(1.0)));
    assert_eq!(common.guidance_interval, Some(GuidanceInterval { start: 0.0, end: 0.8 }));
    assert_eq!((common.prompt_2.as_deref(), common.negative_prompt_2.as_deref()), (Some("c"), Some("d")));
    assert_eq!((common.loras[0].scale, common.control[0].end), (-0.5, 0.9));
    assert!(common.guess_mode && common.control[0].preprocess == Preprocessor::Canny);
    assert!(common.cancel_on_disconnect && common.tiling.x && !common.tiling.y);
    let preview = common.preview.unwrap();
    assert_eq!((preview.every, preview.method, preview.max_side), (5, PreviewMethod::Taesd, 128));
    assert_eq!((common.output.format, common.output.quality), (ImageFormat::Jpeg, 70));
    assert_eq!((common.hive_id.as_deref(), common.worker_id.as_deref()), (Some("h"), Some("w")));
}

#[test]
fn all_names_are_those_that_users_know() {
    let samplers = "ddim, ddpm, pndm, euler, euler_a, heun, dpm2, dpm2_a, lms, dpmpp_2m, dpmpp_2m_sde, dpmpp_sde, \
                    dpmpp_2s_a, dpmpp_3m_sde, unipc, deis, lcm, tcd, flow_euler, flow_heun";
    let schedules = "normal, karras, exponential, beta, sgm_uniform, simple, ddim_uniform, align_your_steps";
    let names = |all: Vec<String>| all.join(", ");
    assert_eq!(names(Sampler::ALL.iter().map(ToString::to_string).collect()), samplers);
    assert_eq!(names(Schedule::ALL.iter().map(ToString::to_string).collect()), schedules);
    for sampler in Sampler::ALL {
        assert_eq!(sampler.as_str().parse::<Sampler>(), Ok(*sampler));
        assert_eq!(serde_json::to_value(sampler).unwrap(), json!(sampler.as_str()));
    }
}

#[test]
fn errors_have_one_form() {
    let body = ErrorBody { error: ErrorDetail::new(ErrorCode::QueueFull, "full") };
    assert_eq!(
        serde_json::to_value(&body).unwrap(),
        json!({"error": {"code": "queue_full", "message": "full"}})
    );
    let invalid = Operation::from_json(&json!({"operation": "image_generation", "prompt": "a", "steps": 0}));
    assert_eq!(
        serde_json::to_value(ErrorDetail::from(invalid.unwrap_err())).unwrap(),
        json!({
            "code": "invalid_request", "message": "steps: 0 is outside 1..=150",
            "fields": [{"field": "steps", "value": 0, "message": "0 is outside 1..=150", "limit": "1..=150"}],
        })
    );
}

#[test]
fn a_code_is_written_as_it_is_named() {
    for code in
        [ErrorCode::InvalidRequest, ErrorCode::OutOfMemory, ErrorCode::ShuttingDown, ErrorCode::NotReady]
    {
        assert_eq!(serde_json::to_value(code).unwrap(), json!(code.as_str()));
    }
}
