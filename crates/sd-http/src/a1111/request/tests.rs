use operations_contract::ImageData;

use super::*;

fn model() -> ModelCapabilities {
    ModelCapabilities::text_to_image("test", "test")
}

fn fields(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// The operation that a body becomes, without what every one has, and what was ignored.
fn means(kind: Kind, body: &Value) -> (Value, Vec<String>) {
    let (parsed, asked) = translate(kind, &fields(body), Settings::default(), Some(&model()));
    assert_eq!(parsed.faults, [], "{body}");
    let mut told = serde_json::to_value(parsed.operation.unwrap()).unwrap();
    let silent = serde_json::to_value(Operation::generate("x")).unwrap();
    let fields = told.as_object_mut().unwrap();
    fields.retain(|name, value| {
        silent.get(name) != Some(value) && !["init_image", "mask_image", "output"].contains(&name.as_str())
    });
    (told, asked.ignored)
}

fn faults(kind: Kind, body: &Value) -> Vec<String> {
    let (parsed, _) = translate(kind, &fields(body), Settings::default(), Some(&model()));
    parsed.faults.into_iter().map(|fault| fault.field).collect()
}

/// A picture of two by one pixels, black and white, as base64.
fn picture() -> String {
    let image = image::GrayImage::from_fn(2, 1, |x, _| image::Luma([x as u8 * 255]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    ImageData::new(bytes.into_inner()).to_base64()
}

fn with(mut base: Value, more: &Value) -> Value {
    base.as_object_mut().unwrap().extend(fields(more));
    base
}

#[test]
fn every_field_of_txt2img_has_its_place() {
    for (sent, expected) in [
        (json!({}), json!({})),
        (
            json!({"negative_prompt": "no", "steps": 7, "cfg_scale": 2.5}),
            json!({"negative_prompt": "no", "steps": 7, "guidance_scale": 2.5}),
        ),
        (json!({"width": 64, "height": 128, "seed": 5}), json!({"width": 64, "height": 128, "seed": 5})),
        (json!({"seed": -1}), json!({})),
        (json!({"seed": ""}), json!({})),
        (json!({"batch_size": 2, "n_iter": 3}), json!({"num_images": 6})),
        (json!({"tiling": true}), json!({"tiling": {"x": true, "y": true}})),
        (json!({"sampler_name": "Euler a"}), json!({"sampler": "euler_a", "schedule": "normal"})),
        (json!({"sampler_name": "DPM++ 2M"}), json!({"sampler": "dpmpp_2m", "schedule": "karras"})),
        (
            json!({"sampler_name": "DPM++ 2M", "scheduler": "Automatic"}),
            json!({"sampler": "dpmpp_2m", "schedule": "karras"}),
        ),
        (
            json!({"sampler_name": "DPM++ 2M", "scheduler": "Uniform"}),
            json!({"sampler": "dpmpp_2m", "schedule": "normal"}),
        ),
        (json!({"sampler_name": "DPM++ 2M Karras"}), json!({"sampler": "dpmpp_2m", "schedule": "karras"})),
        (
            json!({"sampler_index": "k_heun", "scheduler": "beta"}),
            json!({"sampler": "heun", "schedule": "beta"}),
        ),
        (
            json!({"sampler_index": "Euler", "sampler_name": "DDIM", "eta": 0.5}),
            json!({"sampler": "ddim", "schedule": "normal", "eta": 0.5}),
        ),
        (json!({"sampler_name": "Euler", "eta": 0.3}), json!({"sampler": "euler", "schedule": "normal"})),
        (json!({"sampler_name": "Euler a", "eta": 1.0}), json!({"sampler": "euler_a", "schedule": "normal"})),
        (json!({"scheduler": "karras"}), json!({"schedule": "karras"})),
        (
            json!({"override_settings": {"sd_model_checkpoint": "test [ab12]", "CLIP_stop_at_last_layers": 2, "randn_source": "CPU"}}),
            json!({"model": "test", "clip_skip": 1}),
        ),
        (
            json!({"override_settings": {"eta_ddim": 0.2}, "sampler_name": "DDIM"}),
            json!({"sampler": "ddim", "schedule": "normal", "eta": 0.2}),
        ),
        (
            json!({"enable_hr": true, "hr_scale": 1.5, "hr_upscaler": "Lanczos", "denoising_strength": 0.4, "hr_second_pass_steps": 9,
                   "hr_sampler_name": "Use same sampler", "hr_prompt": ""}),
            json!({"hires": {"scale": 1.5, "upscaler": "lanczos", "strength": 0.4, "steps": 9}}),
        ),
        (
            json!({"enable_hr": true, "width": 64, "height": 32, "hr_resize_x": 128, "hr_resize_y": 64, "hr_second_pass_steps": 0}),
            json!({"width": 64, "height": 32, "hires": {"scale": 2.0, "upscaler": "latent", "strength": 0.7}}),
        ),
        (
            json!({"enable_hr": false, "hr_upscaler": "Latent (nearest)", "hr_prompt": "y", "denoising_strength": 0.4}),
            json!({}),
        ),
        (
            json!({"alwayson_scripts": {"ControlNet": {"args": [
                {"enabled": false, "model": "x", "image": "?"},
                {"enabled": true, "model": "None"},
                {"model": "edges [d14c016b]", "image": picture(), "module": "canny", "weight": 0.5, "guidance_start": 0.1,
                 "guidance_end": 0.9, "control_mode": "Balanced", "threshold_a": 64, "mask": null},
            ]}, "ADetailer": {"args": [false]}}}),
            json!({"control": [{"kind": "edges", "image": picture(), "preprocess": "canny", "strength": 0.5, "start": 0.1, "end": 0.9}]}),
        ),
    ] {
        let (mut told, ignored) = means(Kind::Txt2Img, &with(json!({"prompt": "x"}), &sent));
        assert_eq!(told.as_object_mut().unwrap().remove("operation"), None, "a generation");
        assert_eq!(told, expected, "{sent}");
        assert_eq!(ignored, Vec::<String>::new(), "{sent}");
    }
}

#[test]
fn loras_of_the_prompt_are_fields() {
    let (parsed, _) = translate(
        Kind::Txt2Img,
        &fields(&json!({"prompt": "a cat <lora:ink:0.5>"})),
        Settings::default(),
        None,
    );
    let operation = parsed.operation.unwrap();
    assert_eq!(operation.common().unwrap().prompt, "a cat ");
    assert_eq!(
        operation.common().unwrap().loras,
        [operations_contract::Lora { name: "ink".into(), scale: 0.5 }]
    );
}

#[test]
fn every_field_of_img2img_has_its_place() {
    let base = json!({"prompt": "x", "init_images": [picture()]});
    for (sent, expected) in [
        (json!({}), json!({"operation": "image_transform", "strength": 0.75})),
        (
            json!({"denoising_strength": 0.3, "mask": null}),
            json!({"operation": "image_transform", "strength": 0.3}),
        ),
        (
            json!({"resize_mode": 1, "width": 64, "height": 32}),
            json!({"operation": "image_transform", "strength": 0.75, "width": 64, "height": 32}),
        ),
        (
            json!({"mask": picture(), "inpainting_fill": 1}),
            json!({"operation": "image_inpaint", "strength": 0.75, "mask_blur": 4, "padding_mask_crop": 0}),
        ),
        (
            json!({"mask": picture(), "inpainting_fill": 1, "mask_blur_x": 7, "mask_blur_y": 7, "inpaint_full_res": 0}),
            json!({"operation": "image_inpaint", "strength": 0.75, "mask_blur": 7}),
        ),
        (
            json!({"mask": picture(), "inpainting_fill": 1, "mask_blur": 2, "inpaint_full_res_padding": 32}),
            json!({"operation": "image_inpaint", "strength": 0.75, "mask_blur": 2, "padding_mask_crop": 32}),
        ),
    ] {
        let (told, ignored) = means(Kind::Img2Img, &with(base.clone(), &sent));
        assert_eq!(told, expected, "{sent}");
        assert_eq!(ignored, Vec::<String>::new(), "{sent}");
    }
    let (parsed, _) = translate(
        Kind::Img2Img,
        &fields(&with(base, &json!({"mask": picture(), "inpainting_mask_invert": 1}))),
        Settings::default(),
        None,
    );
    let Some(Operation::ImageInpaint(request)) = parsed.operation else { panic!("no inpaint") };
    let mask = image::load_from_memory(request.mask_image.bytes()).unwrap().into_luma8();
    assert_eq!(mask.into_raw(), [255, 0]);
}

#[test]
fn what_would_be_another_picture_is_refused_by_its_name() {
    for (sent, field) in [
        (json!({"sampler_name": "Restart"}), "sampler_name"),
        (json!({"scheduler": "KL Optimal"}), "scheduler"),
        (json!({"sampler_name": "Euler a", "eta": 0.5}), "eta"),
        (json!({"subseed_strength": 0.5}), "subseed_strength"),
        (json!({"seed_resize_from_w": 64}), "seed_resize_from_w"),
        (json!({"restore_faces": true}), "restore_faces"),
        (json!({"styles": ["oil"]}), "styles"),
        (json!({"script_name": "x/y/z plot"}), "script_name"),
        (json!({"s_churn": 4}), "s_churn"),
        (json!({"refiner_checkpoint": "xl", "refiner_switch_at": 0.8}), "refiner_checkpoint"),
        (json!({"override_settings": {"sd_vae": "x.pt"}}), "override_settings.sd_vae"),
        (json!({"override_settings": 7}), "override_settings"),
        (json!({"batch_size": 0}), "batch_size"),
        (json!({"batch_size": 3, "n_iter": 3}), "num_images"),
        (json!({"steps": 0}), "steps"),
        (json!({"cfg_scale": "high"}), "guidance_scale"),
        (json!({"seed": -2}), "seed"),
        (json!({"prompt": "a <hypernet:x>"}), "prompt"),
        (json!({"prompt": "a <lora:b:99>"}), "loras[0].scale"),
        (json!({"enable_hr": true, "hr_upscaler": "R-ESRGAN 4x+"}), "hr_upscaler"),
        (json!({"enable_hr": true, "hr_sampler_name": "Heun"}), "hr_sampler_name"),
        (json!({"enable_hr": true, "hr_resize_x": 128}), "hr_resize_x"),
        (
            json!({"alwayson_scripts": {"ADetailer": {"args": [true, {"ad_model": "face"}]}}}),
            "alwayson_scripts.ADetailer",
        ),
        (
            json!({"alwayson_scripts": {"controlnet": {"args": [{"model": "x", "image": picture(), "module": "openpose"}]}}}),
            "alwayson_scripts.controlnet.args[0].module",
        ),
    ] {
        assert_eq!(faults(Kind::Txt2Img, &with(json!({"prompt": "x"}), &sent)), [field], "{sent}");
    }
    let base = json!({"prompt": "x", "init_images": [picture()], "mask": picture()});
    for (sent, field) in [
        (json!({"init_images": [picture(), picture()]}), "init_images"),
        (json!({"init_images": []}), "init_images"),
        (json!({"init_images": picture()}), "init_images"),
        (json!({"inpainting_fill": 2}), "inpainting_fill"),
        (json!({"resize_mode": 1, "width": 64, "height": 64}), "resize_mode"),
        (json!({"resize_mode": 3}), "resize_mode"),
        (json!({"mask_blur_x": 1, "mask_blur_y": 2}), "mask_blur_y"),
        (json!({"mask": "?", "inpainting_mask_invert": true}), "mask"),
        (json!({"initial_noise_multiplier": 1.1}), "initial_noise_multiplier"),
    ] {
        assert_eq!(faults(Kind::Img2Img, &with(base.clone(), &sent)), [field], "{sent}");
    }
}

#[test]
fn what_changes_no_picture_is_ignored_and_told() {
    let body = json!({
        "prompt": "x", "save_images": true, "do_not_save_grid": true, "firm": "acme", "s_tmax": 0, "subseed": -1,
        "override_settings": {"samples_save": true}, "override_settings_restore_afterwards": false,
    });
    let (_, mut ignored) = means(Kind::Txt2Img, &body);
    ignored.sort();
    assert_eq!(
        ignored,
        ["firm", "override_settings.samples_save", "override_settings_restore_afterwards", "save_images"]
    );
    let masked = json!({"prompt": "x", "init_images": [picture()], "mask": picture()});
    assert_eq!(means(Kind::Img2Img, &masked).1, ["inpainting_fill"]);
}

/// The model's refiner, by the names that clients of the web UI have for a checkpoint.
#[test]
fn the_refiner_that_is_loaded_takes_over_and_no_other() {
    let model = ModelCapabilities { refiner: Some("xl-refiner".into()), ..model() };
    let told = |more: Value| {
        let body = with(json!({"prompt": "x"}), &more);
        let (parsed, _) = translate(Kind::Txt2Img, &fields(&body), Settings::default(), Some(&model));
        let faults: Vec<String> = parsed.faults.into_iter().map(|fault| fault.field).collect();
        let refiner = parsed.operation.and_then(|operation| operation.common().unwrap().refiner);
        (refiner.map(|refiner| refiner.start), faults)
    };
    for name in ["xl-refiner", "xl-refiner.safetensors", "xl-refiner.safetensors [7440042bbd]"] {
        let sent = json!({"refiner_checkpoint": name, "refiner_switch_at": 0.6});
        assert_eq!(told(sent), (Some(0.6), vec![]), "{name}");
    }
    for sent in [
        json!({"refiner_switch_at": 0.6}),
        json!({"refiner_checkpoint": "None", "refiner_switch_at": 0.6}),
        json!({"refiner_checkpoint": "xl-refiner", "refiner_switch_at": 1}),
    ] {
        assert_eq!(told(sent.clone()), (None, vec![]), "{sent}");
    }
    for (sent, field) in [
        (json!({"refiner_checkpoint": "other", "refiner_switch_at": 0.6}), "refiner_checkpoint"),
        (json!({"refiner_checkpoint": "xl-refiner"}), "refiner_switch_at"),
        (json!({"refiner_checkpoint": "xl-refiner", "refiner_switch_at": "late"}), "refiner_switch_at"),
        (json!({"refiner_checkpoint": "xl-refiner", "refiner_switch_at": 0}), "refiner.start"),
    ] {
        assert_eq!(told(sent.clone()).1, [field], "{sent}");
    }
}

/// Nothing that the web UI knows is taken for an unknown field, which would be ignored.
#[test]
fn every_field_that_the_web_ui_knows_is_read() {
    for kind in [Kind::Txt2Img, Kind::Img2Img] {
        let known = echo::of(kind, &Map::new(), true);
        // Values that mean nothing, of a type that no field has: what is read is refused or passed on, never unknown.
        let sent: Map<String, Value> = known.keys().map(|name| (name.clone(), json!([["?"]]))).collect();
        let mut payload_ignored = translate(kind, &sent, Settings::default(), None).1.ignored;
        payload_ignored.retain(|name| {
            ![
                "save_images",
                "force_task_id",
                "comments",
                "override_settings_restore_afterwards",
                "inpainting_fill",
            ]
            .contains(&name.as_str())
        });
        assert_eq!(payload_ignored, Vec::<String>::new());
    }
}
