//! The web UI's requests as JSON Schema. A test holds it to what [`request`](super::request) and
//! [`settings`](super::settings) read.

use std::borrow::Cow;

use operations_contract::OperationKind;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::hires::FIELDS as OF_SECOND_PASS;
use super::settings::WITHOUT_PICTURE;
use crate::openapi::fields::{self, Fields};

/// The body of `POST txt2img`.
pub(crate) struct Txt2Img;

/// The body of `POST img2img`.
pub(crate) struct Img2Img;

/// The body of `POST extra-single-image`.
pub(crate) struct Enlarge;

/// The body of `POST options`, and `override_settings`.
pub(crate) struct Settings;

/// The body of `POST png-info`.
pub(crate) struct Picture;

impl JsonSchema for Txt2Img {
    fn schema_name() -> Cow<'static, str> {
        "WebUiTxt2Img".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let ours = fields::of_operation(generator, OperationKind::ImageGeneration);
        let mut all = common(generator, &ours);
        let second_pass = second_pass();
        for name in OF_SECOND_PASS.iter().chain(&["denoising_strength"]) {
            all.insert((*name).to_owned(), json!({"description": "Of the second pass."}));
        }
        all.insert("enable_hr".into(), flag("A second pass over a larger picture: `hires`."));
        let mut schema = fields::object(all, &[], ABOUT);
        let object = schema.ensure_object();
        object.remove("additionalProperties");
        object.insert(
            "if".into(),
            json!({"required": ["enable_hr"], "properties": {"enable_hr": {"enum": [true, 1]}}}),
        );
        object.insert("then".into(), json!({"properties": second_pass}));
        schema
    }
}

impl JsonSchema for Img2Img {
    fn schema_name() -> Cow<'static, str> {
        "WebUiImg2Img".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let ours = fields::of_operation(generator, OperationKind::ImageTransform);
        let mut all = common(generator, &ours);
        let mut put = |name: &str, schema: Value| drop(all.insert(name.to_owned(), schema));
        let mut strength = ours.get("strength").cloned().unwrap_or_default();
        strength["default"] = super::request::IMG2IMG_STRENGTH.into();
        put("denoising_strength", strength);
        let image = generator.subschema_for::<operations_contract::ImageData>().to_value();
        put(
            "init_images",
            json!({"type": "array", "minItems": 1, "maxItems": 1, "items": image, "description": "`init_image`"}),
        );
        put("resize_mode", json!({"enum": [0, 1, 2, null], "description": "Nothing is cut or filled."}));
        put("mask", or_nothing(json!({"type": "string"}), "`mask_image`, as base64."));
        put("inpainting_mask_invert", flag("Black is redrawn."));
        for name in ["mask_blur", "mask_blur_x", "mask_blur_y"] {
            put(name, whole("`mask_blur`; both directions alike."));
        }
        put("inpainting_fill", whole("With a mask 0 or 1."));
        put("inpaint_full_res", flag("Draws the surroundings of the mask alone."));
        put("inpaint_full_res_padding", json!({"description": "`padding_mask_crop`"}));
        put("include_init_images", flag("`parameters` tells them."));
        put("initial_noise_multiplier", only(&[json!(1)]));
        put("latent_mask", nothing());
        for name in ["image_cfg_scale", "mask_round"] {
            put(name, json!({"description": "Does nothing."}));
        }
        let mut schema = fields::object(all, &["init_images"], ABOUT);
        schema.ensure_object().remove("additionalProperties");
        schema
    }
}

impl JsonSchema for Enlarge {
    fn schema_name() -> Cow<'static, str> {
        "WebUiEnlarge".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let ours = fields::of_operation(generator, OperationKind::ImageUpscale);
        let mut all = Map::new();
        let mut put = |name: &str, schema: Value| drop(all.insert(name.to_owned(), schema));
        put("image", ours.get("image").cloned().unwrap_or_default());
        let mut network = ours.get("model").cloned().unwrap_or_default();
        network["type"] = "string".into();
        network["not"] = json!({"enum": ["None"]});
        network["description"] = "`Network`, or the name of one.".into();
        put("upscaler_1", network);
        put("upscaling_resize", ours.get("scale").cloned().unwrap_or_default());
        put("resize_mode", json!({"enum": [0, 1, null], "description": "1: to the size of the next two."}));
        for name in ["upscaling_resize_w", "upscaling_resize_h"] {
            put(name, whole("In the picture's ratio."));
        }
        for name in ["gfpgan_visibility", "codeformer_visibility", "extras_upscaler_2_visibility"] {
            put(name, only(&[json!(0)]));
        }
        for name in
            ["upscaling_crop", "upscaler_2", "codeformer_weight", "upscale_first", "show_extras_results"]
        {
            put(name, json!({"description": "Does nothing."}));
        }
        let mut schema = fields::object(all, &["image", "upscaler_1"], ABOUT);
        schema.ensure_object().remove("additionalProperties");
        schema
    }
}

impl JsonSchema for Settings {
    fn schema_name() -> Cow<'static, str> {
        "WebUiSettings".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut all = Map::new();
        let mut put = |name: &str, schema: Value| drop(all.insert(name.to_owned(), schema));
        put("sd_model_checkpoint", json!({"type": "string", "description": "One that `sd-models` lists."}));
        put("CLIP_stop_at_last_layers", json!({"type": "integer", "minimum": 1, "maximum": 12}));
        put("samples_format", json!({"enum": ["png", "jpg", "jpeg", "webp"]}));
        put("jpeg_quality", json!({"type": "integer", "minimum": 1, "maximum": 100}));
        put("show_progress_every_n_steps", json!({"type": "integer", "minimum": -1, "maximum": 150}));
        put("live_previews_enable", json!({"type": "boolean"}));
        put("randn_source", json!({"enum": ["CPU", "GPU", "NV"]}));
        put("eta_ddim", json!({"type": "number"}));
        for name in ["eta_ancestral", "s_noise", "initial_noise_multiplier"] {
            put(name, json!({"enum": [1]}));
        }
        for name in [
            "eta_noise_seed_delta",
            "s_churn",
            "s_min_uncond",
            "token_merging_ratio",
            "token_merging_ratio_hr",
            "token_merging_ratio_img2img",
        ] {
            put(name, json!({"enum": [0]}));
        }
        for name in [
            "img2img_color_correction",
            "img2img_fix_steps",
            "tiling",
            "always_discard_next_to_last_sigma",
            "sgm_noise_multiplier",
        ] {
            put(name, json!({"enum": [false]}));
        }
        put("sd_vae", json!({"enum": ["Automatic", "None", ""]}));
        let about = "Settings that change pictures, and those about files and the user interface, which are ignored. \
            Others are refused.";
        let mut schema = fields::object(all, &[], about);
        let ignored = format!("^({})", WITHOUT_PICTURE.join("|"));
        schema.ensure_object().insert("patternProperties".into(), json!({ignored: {}}));
        schema
    }
}

impl JsonSchema for Picture {
    fn schema_name() -> Cow<'static, str> {
        "WebUiPicture".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let image = generator.subschema_for::<operations_contract::ImageData>().to_value();
        let mut fields = Map::new();
        fields.insert("image".into(), image);
        let mut schema = fields::object(fields, &["image"], "A picture that tells how it was made.");
        schema.ensure_object().remove("additionalProperties");
        schema
    }
}

const ABOUT: &str = "The web UI's fields. Those that change no picture, and unknown ones, are ignored and listed in \
    `info.ignored`.";

/// The fields of both.
fn common(generator: &mut SchemaGenerator, ours: &Fields) -> Fields {
    let mut all = Map::new();
    let mut put = |name: &str, schema: Value| drop(all.insert(name.to_owned(), schema));
    for (theirs, name) in [
        ("negative_prompt", "negative_prompt"),
        ("steps", "steps"),
        ("cfg_scale", "guidance_scale"),
        ("width", "width"),
        ("height", "height"),
    ] {
        put(theirs, ours.get(name).cloned().unwrap_or_default());
    }
    let mut prompt = ours.get("prompt").cloned().unwrap_or_default();
    prompt["type"] = json!(["string", "null"]);
    prompt["default"] = "".into();
    put("prompt", prompt);
    let whole = json!({"type": "integer", "minimum": -1, "maximum": u64::MAX});
    put("seed", or_nothing(whole, "-1: any."));
    put("sampler_name", or_nothing(json!({"type": "string"}), "One that `samplers` lists."));
    put(
        "sampler_index",
        json!({"type": ["string", "null"], "description": "The older name of `sampler_name`."}),
    );
    put("scheduler", or_nothing(json!({"type": "string"}), "One that `schedulers` lists."));
    put("eta", json!({"type": ["number", "null"]}));
    let mut count = ours.get("num_images").cloned().unwrap_or_default();
    count["description"] = "Pictures are as many as both together make.".into();
    put("batch_size", count.clone());
    put("n_iter", count);
    put("tiling", flag("Its edges meet."));
    put("send_images", flag("The answer holds the pictures."));
    let settings = generator.subschema_for::<Settings>().to_value();
    put(
        "override_settings",
        json!({"anyOf": [settings, {"type": "null"}], "description": "For this request."}),
    );
    put(
        "alwayson_scripts",
        json!({"type": ["object", "null"], "description": "Those of the ControlNet extension: `control`.",
               "properties": {"controlnet": {"properties": {"args": {"items": {"properties": unit()}}}}}}),
    );
    for name in ["subseed_strength", "s_churn", "s_min_uncond"] {
        put(name, only(&[json!(0)]));
    }
    put("s_noise", only(&[json!(1)]));
    for name in ["restore_faces", "disable_extra_networks"] {
        put(name, only(&[json!(false), json!(0)]));
    }
    for name in ["seed_resize_from_w", "seed_resize_from_h"] {
        put(name, json!({"type": ["number", "null"], "maximum": 0}));
    }
    put(
        "refiner_checkpoint",
        or_nothing(json!({"type": "string"}), "The refiner that is loaded: `refiner`."),
    );
    put("refiner_switch_at", json!({"description": "With `refiner_checkpoint`, a number: `start`."}));
    for name in ["styles", "script_name", "infotext", "firstpass_image"] {
        put(name, nothing());
    }
    for name in [
        "subseed",
        "s_tmax",
        "s_tmin",
        "script_args",
        "save_images",
        "force_task_id",
        "comments",
        "do_not_save_samples",
        "do_not_save_grid",
        "override_settings_restore_afterwards",
    ] {
        put(name, json!({"description": "Does nothing."}));
    }
    all
}

/// The fields of a second pass, where there is one.
fn second_pass() -> Fields {
    let mut all = Map::new();
    let mut put = |name: &str, schema: Value| drop(all.insert(name.to_owned(), schema));
    for name in ["hr_scale", "hr_resize_x", "hr_resize_y", "denoising_strength"] {
        put(name, json!({"type": ["number", "null"]}));
    }
    put("hr_second_pass_steps", whole("As many as the first pass has when 0."));
    put("hr_upscaler", json!({"enum": ["Latent", "Lanczos", "Network", null]}));
    for (name, same) in [
        ("hr_checkpoint_name", "Use same checkpoint"),
        ("hr_sampler_name", "Use same sampler"),
        ("hr_scheduler", "Use same scheduler"),
    ] {
        let mut field = nothing();
        if let Some(values) = field["enum"].as_array_mut() {
            values.push(same.into());
        }
        put(name, field);
    }
    for name in ["hr_prompt", "hr_negative_prompt"] {
        put(name, nothing());
    }
    for name in ["firstphase_width", "firstphase_height"] {
        put(name, only(&[json!(0)]));
    }
    all
}

/// One ControlNet. What it may hold depends on whether it is enabled.
fn unit() -> Fields {
    let about = [
        ("enabled", "`false`: it counts for nothing."),
        ("model", "A name that `GET /v1/models` lists: `kind`."),
        ("image", "As base64."),
        ("module", "`none` or `canny`: `preprocess`."),
        ("weight", "`strength`"),
        ("guidance_start", "`start`"),
        ("guidance_end", "`end`"),
        ("control_mode", "`Balanced` or 0."),
    ];
    about.into_iter().map(|(name, about)| (name.to_owned(), json!({"description": about}))).collect()
}

/// A whole number, of any size that is a number here.
fn whole(about: &str) -> Value {
    json!({"type": ["integer", "null"], "minimum": i64::MIN, "maximum": i64::MAX, "description": about})
}

/// `true`, `false`, 0 or 1.
fn flag(about: &str) -> Value {
    json!({"enum": [true, false, 0, 1, null], "description": about})
}

/// These values and `null`.
fn only(values: &[Value]) -> Value {
    let values: Vec<Value> = values.iter().cloned().chain([Value::Null]).collect();
    json!({"enum": values})
}

/// What [`says_nothing`](super::payload::says_nothing).
fn nothing() -> Value {
    json!({"enum": [null, "", "None", [], {}]})
}

fn or_nothing(mut schema: Value, about: &str) -> Value {
    schema = json!({"anyOf": [schema, nothing()]});
    schema["description"] = about.into();
    schema
}

#[cfg(test)]
mod tests {
    use operations_contract::{FieldError, ModelCapabilities};
    use schemars::generate::SchemaSettings;

    use super::super::extras;
    use super::super::payload::says_nothing;
    use super::super::request::{self, Kind};
    use super::super::settings;
    use super::*;
    use crate::openapi::fields::tests::{agrees, says};

    fn schema<T: JsonSchema>() -> Value {
        SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value()
    }

    /// The names of what the parser refuses in a request of this one field and `others`.
    fn faults(kind: Kind, others: &Value, name: &str, value: &Value) -> Vec<String> {
        let mut fields = others.as_object().unwrap().clone();
        if name == "mask_blur_y" {
            // Both directions alike.
            fields.insert("mask_blur_x".into(), value.clone());
        }
        fields.insert(name.to_owned(), value.clone());
        let model = ModelCapabilities::text_to_image("test", "stable-diffusion");
        let (parsed, _) = request::translate(kind, &fields, settings::Settings::default(), Some(&model));
        let theirs = |fault: FieldError| request::their_name(&fault.field).unwrap_or(fault.field);
        let told = parsed.faults.into_iter().map(theirs);
        // Of names with several words for one field the parser tells one.
        told.map(|fault| match fault.as_str() {
            "batch_size" if name == "n_iter" => "n_iter".to_owned(),
            "sampler_name" if name == "sampler_index" => "sampler_index".to_owned(),
            _ => fault,
        })
        .collect()
    }

    #[test]
    fn txt2img_is_what_the_parser_takes() {
        let others = json!({"prompt": "a"});
        let schema = schema::<Txt2Img>();
        let checked = agrees(&schema, |name, value| {
            // Names of samplers and schedules are the model's to know.
            is_listed(name, value) || !says(&faults(Kind::Txt2Img, &others, name, value), name)
        });
        assert!(checked > 1000, "{checked}");
    }

    #[test]
    fn a_second_pass_is_what_the_parser_takes() {
        let others = json!({"prompt": "a", "enable_hr": true, "width": 64, "height": 64});
        let mut of_hires = schema::<Txt2Img>();
        of_hires["properties"] = of_hires["then"]["properties"].clone();
        // Their bounds are those of `hires`, and of a size that is asked for.
        let bounded =
            ["hr_scale", "hr_resize_x", "hr_resize_y", "denoising_strength", "hr_second_pass_steps"];
        agrees(&of_hires, |name, value| {
            let refused = says(&faults(Kind::Txt2Img, &others, name, value), name);
            !refused
                || bounded.contains(&name)
                    && value.is_number()
                    && !(name == "hr_second_pass_steps" && value.as_i64().is_none())
        });
    }

    #[test]
    fn img2img_is_what_the_parser_takes() {
        let others = json!({"prompt": "a", "init_images": ["aGVsbG8="]});
        let schema = schema::<Img2Img>();
        let checked = agrees(&schema, |name, value| {
            // A text is a picture or not.
            let refused = says(&faults(Kind::Img2Img, &others, name, value), name);
            !refused || is_listed(name, value) || is_picture(name, value)
        });
        assert!(checked > 1000, "{checked}");
        assert!(says(&faults(Kind::Img2Img, &others, "init_images", &Value::Null), "init_images"));
    }

    #[test]
    fn an_enlargement_is_what_the_parser_takes() {
        let schema = schema::<Enlarge>();
        agrees(&schema, |name, value| {
            let mut fields = Map::new();
            fields.insert("image".into(), crate::openapi::PICTURE.into());
            fields.insert("upscaler_1".into(), "Network".into());
            if name == "resize_mode" {
                fields.extend([
                    ("upscaling_resize_w".into(), 32.into()),
                    ("upscaling_resize_h".into(), 32.into()),
                ]);
            }
            fields.insert(name.to_owned(), value.clone());
            let (parsed, _) = extras::translate(&fields, &settings::Settings::default());
            let theirs = |fault: FieldError| extras::their_name(&fault.field).unwrap_or(fault.field);
            let faults: Vec<String> = parsed.faults.into_iter().map(theirs).collect();
            // A text is a picture or not.
            !says(&faults, name) || name == "image" && value.as_str().is_some_and(|text| !text.is_empty())
        });
    }

    #[test]
    fn settings_are_what_the_parser_takes() {
        let schema = schema::<Settings>();
        let checked = agrees(&schema, |name, value| settings::Settings::default().set(name, value).is_ok());
        assert!(checked > 500, "{checked}");
        let ignored = schema["patternProperties"].as_object().unwrap().keys().next().unwrap();
        assert!(ignored.contains("|save|"), "{ignored}");
        assert_eq!(settings::Settings::default().set("save_x", &json!([])), Ok(settings::Effect::Ignored));
        assert!(settings::Settings::default().set("surprise", &json!(1)).is_err());
    }

    #[test]
    fn nothing_is_what_says_nothing() {
        for value in nothing()["enum"].as_array().unwrap() {
            assert!(says_nothing(value), "{value}");
        }
    }

    fn is_listed(name: &str, value: &Value) -> bool {
        matches!(name, "sampler_name" | "sampler_index" | "scheduler" | "refiner_checkpoint")
            && value.is_string()
    }

    fn is_picture(name: &str, value: &Value) -> bool {
        match name {
            "mask" => value.is_string(),
            "init_images" => value.as_array().is_some_and(|list| list.len() == 1 && list[0].is_string()),
            _ => false,
        }
    }
}
