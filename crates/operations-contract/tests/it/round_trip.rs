//! What is serialized and parsed again is the same.

use operations_contract::{
    Common, Control, Extend, GuidanceInterval, Hires, ImageData, ImageFormat, ImageGeneration, ImageInpaint,
    ImageTransform, ImageUpscale, Lora, Operation, Output, Preprocessor, Preview, PreviewMethod, Priority,
    Refiner, RngKind, Sampler, Schedule, Tiling, TimestepSpacing, Upscaler,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

fn image() -> impl Strategy<Value = ImageData> {
    vec(any::<u8>(), 1..40).prop_map(ImageData::new)
}

fn name() -> impl Strategy<Value = String> {
    "[a-z\"\\\\é]{1,12}"
}

fn lora() -> impl Strategy<Value = Lora> {
    (name(), -10.0..=10.0f64).prop_map(|(name, scale)| Lora { name, scale })
}

fn control() -> impl Strategy<Value = Control> {
    let span = (0.0..0.5f64, 0.5..=1.0f64);
    (name(), image(), select(Preprocessor::ALL), 0.0..=2.0f64, span).prop_map(
        |(kind, image, preprocess, strength, (start, end))| Control {
            kind,
            image,
            preprocess,
            strength,
            start,
            end,
        },
    )
}

fn hires() -> impl Strategy<Value = Hires> {
    (1.0..=4.0f64, select(Upscaler::ALL), 0.0..=1.0f64, of(1..=150u32))
        .prop_map(|(scale, upscaler, strength, steps)| Hires { scale, upscaler, strength, steps })
}

fn preview() -> impl Strategy<Value = Preview> {
    (1..=150u32, select(PreviewMethod::ALL), 16..=1024u32).prop_map(|(every, method, max_side)| Preview {
        every,
        method,
        max_side,
    })
}

fn output() -> impl Strategy<Value = Output> {
    (select(ImageFormat::ALL), 1..=100u32, any::<bool>()).prop_map(|(format, quality, metadata)| Output {
        format,
        quality,
        metadata,
    })
}

fn common() -> impl Strategy<Value = Common> {
    let texts = ("\\PC{0,30}[a-z]", "\\PC{0,30}", of(name()), of(name()), of(name()));
    let numbers = (
        of(16..=4096u32),
        of(16..=4096u32),
        of(1..=150u32),
        of(0.0..=30.0f64),
        of(any::<u64>()),
        1..=8u32,
        0..=11u32,
        of(1..=86_400_000u64),
    );
    let names = (
        of(select(Sampler::ALL)),
        of(select(Schedule::ALL)),
        select(RngKind::ALL),
        select(Priority::ALL),
        of(select(TimestepSpacing::ALL)),
    );
    let refiner = of((0.01..=0.99f64).prop_map(|start| Refiner { start }));
    let parts = (vec(lora(), 0..4), vec(control(), 0..3), of(preview()), output(), of(hires()), refiner);
    let flags = (of(any::<bool>()), any::<bool>(), any::<bool>(), any::<bool>());
    let interval = (0.0..0.5f64, 0.5..=1.0f64).prop_map(|(start, end)| GuidanceInterval { start, end });
    let shares = (of(0.0..=1.0f64), of(interval), of(0.0..=1.0f64));
    let seconds = (of(".{0,20}"), of(".{0,20}"));
    let all = (texts, seconds, numbers, names, parts, flags, shares);
    all.prop_map(|(texts, seconds, numbers, names, parts, flags, shares)| Common {
        guidance_rescale: shares.0,
        guidance_interval: shares.1,
        eta: shares.2,
        prompt: texts.0,
        negative_prompt: texts.1,
        prompt_2: seconds.0,
        negative_prompt_2: seconds.1,
        model: texts.2,
        hive_id: texts.3,
        worker_id: texts.4,
        width: numbers.0,
        height: numbers.1,
        steps: numbers.2,
        guidance_scale: numbers.3,
        seed: numbers.4,
        num_images: numbers.5,
        clip_skip: numbers.6,
        deadline_ms: numbers.7,
        cancel_on_disconnect: flags.2,
        sampler: names.0,
        schedule: names.1,
        rng: names.2,
        priority: names.3,
        loras: parts.0,
        guess_mode: flags.3 && !parts.1.is_empty(),
        control: parts.1,
        preview: parts.2,
        hires: parts.4,
        refiner: parts.5,
        timestep_spacing: names.4,
        output: parts.3,
        prompt_weighting: flags.0,
        tiling: Tiling { x: flags.1, y: flags.2 },
    })
}

/// A mask from one or more of its sources.
fn masks() -> impl Strategy<Value = (ImageData, bool, Option<Extend>)> {
    let extend = (1..=2048u32, 0..=2048u32, 0..=256u32).prop_map(|(left, bottom, overlap)| Extend {
        left,
        bottom,
        overlap,
        ..Extend::default()
    });
    prop_oneof![
        (image(), Just(false), of(extend.clone())),
        (Just(ImageData::default()), Just(true), of(extend.clone())),
        (Just(ImageData::default()), Just(false), extend.prop_map(Some)),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let images = (image(), masks(), 0.0..=1.0f64, 0..=256u32, of(0..=1024u32));
    let drawing = (0..3, common(), images).prop_map(|(kind, common, images)| {
        let (init_image, masks, strength, mask_blur, padding_mask_crop) = images;
        let (mask_image, mask_from_alpha, extend) = masks;
        match kind {
            0 => Operation::ImageGeneration(ImageGeneration { common }),
            1 => Operation::ImageTransform(ImageTransform { common, init_image, strength }),
            _ => Operation::ImageInpaint(ImageInpaint {
                common,
                init_image,
                mask_image,
                mask_from_alpha,
                extend,
                strength,
                mask_blur,
                padding_mask_crop,
            }),
        }
    });
    prop_oneof![3 => drawing, 1 => upscale().prop_map(Operation::ImageUpscale)]
}

fn upscale() -> impl Strategy<Value = ImageUpscale> {
    let sizes = (of(1.0..=8.0f64), 32..=1024u32, 0..=8u32, any::<bool>());
    let job = (of(name()), output(), select(Priority::ALL), of(1..=86_400_000u64), of(name()), of(name()));
    (image(), sizes, job).prop_map(|(image, sizes, job)| {
        let ((scale, tile, margin, x), (model, output, priority, deadline_ms, hive_id, worker_id)) =
            (sizes, job);
        ImageUpscale {
            image,
            model,
            scale,
            tile,
            margin,
            tiling: Tiling { x, y: false },
            output,
            priority,
            deadline_ms,
            cancel_on_disconnect: !x,
            hive_id,
            worker_id,
        }
    })
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,10}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        let key = prop_oneof![
            Just("prompt".to_owned()),
            Just("steps".to_owned()),
            Just("loras".to_owned()),
            Just("output".to_owned()),
            Just("name".to_owned()),
            ".{0,8}"
        ];
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map(key, inner, 0..5).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn text_and_back_is_the_same(operation in operation()) {
        let text = serde_json::to_string(&operation).unwrap();
        prop_assert_eq!(serde_json::from_str::<Operation>(&text).unwrap(), operation);
    }

    #[test]
    fn any_json_is_an_operation_or_refused_with_a_reason(mut value in json_value(), kind in 0..5usize) {
        if let (Some(map), Some(kind)) =
            (value.as_object_mut(), ["image_generation", "image_transform", "image_inpaint", "image_upscale"].get(kind))
        {
            map.insert("operation".into(), (*kind).into());
        }
        match Operation::from_json(&value) {
            Ok(operation) => prop_assert_eq!(operation.validate(), Ok(())),
            Err(invalid) => prop_assert!(!invalid.fields().is_empty()),
        }
    }
}
