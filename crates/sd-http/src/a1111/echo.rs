//! The fields of a request as the web UI tells them back in `parameters`: every one that it knows, with its own default
//! where the request says nothing.

use serde_json::{Map, Value, json};

use super::request::Kind;

/// Fields of `StableDiffusionProcessing` that are null by default.
const NULL: [&str; 24] = [
    "styles",
    "sampler_name",
    "scheduler",
    "steps",
    "cfg_scale",
    "width",
    "height",
    "restore_faces",
    "tiling",
    "eta",
    "denoising_strength",
    "s_min_uncond",
    "s_churn",
    "s_tmax",
    "s_tmin",
    "s_noise",
    "override_settings",
    "comments",
    "refiner_checkpoint",
    "refiner_switch_at",
    "firstpass_image",
    "script_name",
    "force_task_id",
    "infotext",
];

/// Its other fields, and what its API adds.
fn common() -> Value {
    json!({
        "prompt": "", "negative_prompt": "", "seed": -1, "subseed": -1, "subseed_strength": 0, "seed_resize_from_h": -1,
        "seed_resize_from_w": -1, "batch_size": 1, "n_iter": 1, "do_not_save_samples": false,
        "do_not_save_grid": false, "override_settings_restore_afterwards": true, "disable_extra_networks": false,
        "sampler_index": "Euler", "script_args": [], "send_images": true, "save_images": false, "alwayson_scripts": {},
    })
}

/// `StableDiffusionProcessingTxt2Img`
fn txt2img() -> Value {
    json!({
        "enable_hr": false, "firstphase_width": 0, "firstphase_height": 0, "hr_scale": 2.0, "hr_upscaler": null,
        "hr_second_pass_steps": 0, "hr_resize_x": 0, "hr_resize_y": 0, "hr_checkpoint_name": null,
        "hr_sampler_name": null, "hr_scheduler": null, "hr_prompt": "", "hr_negative_prompt": "",
    })
}

/// `StableDiffusionProcessingImg2Img`
fn img2img() -> Value {
    json!({
        "init_images": null, "resize_mode": 0, "image_cfg_scale": null, "mask": null, "mask_blur_x": 4,
        "mask_blur_y": 4, "mask_blur": null, "mask_round": true, "inpainting_fill": 0, "inpaint_full_res": true,
        "inpaint_full_res_padding": 0, "inpainting_mask_invert": 0, "initial_noise_multiplier": null,
        "latent_mask": null, "include_init_images": false,
    })
}

/// All fields with what the request says of them. Pictures that were sent come back on request only.
pub(crate) fn of(kind: Kind, fields: &Map<String, Value>, with_init_images: bool) -> Map<String, Value> {
    let mut echo: Map<String, Value> = NULL.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
    let own = if kind == Kind::Txt2Img { txt2img() } else { img2img() };
    for part in [common(), own] {
        if let Value::Object(part) = part {
            echo.extend(part);
        }
    }
    if kind == Kind::Img2Img {
        echo["denoising_strength"] = super::request::IMG2IMG_STRENGTH.into();
    }
    for (name, value) in &mut echo {
        if let Some(given) = fields.get(name) {
            *value = given.clone();
        }
    }
    if !with_init_images {
        for name in ["init_images", "mask"] {
            if let Some(value) = echo.get_mut(name) {
                *value = Value::Null;
            }
        }
    }
    echo
}
