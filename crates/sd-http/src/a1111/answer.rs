//! The answer of `txt2img` and `img2img`: `images`, `parameters`, `info`.

use http::{Response, StatusCode};
use operations_contract::{EventImage, JobId, JobView};
use sd_engine::Parameters;
use serde_json::{Map, Value, json};

use super::names;
use super::request::{Asked, Kind};
use super::views::Pictures;
use crate::api::Api;
use crate::body::{self, ResponseBody};
use crate::error::ApiError;

pub(crate) async fn pictures(
    api: &Api,
    id: &JobId,
    images: &[EventImage],
    mut asked: Asked,
) -> Result<Response<ResponseBody>, ApiError> {
    let wanted = id.clone();
    let job = api.blocking(move |router| router.job(&wanted)).await?;
    let job = job.ok_or_else(|| ApiError::no_job(id.as_str()))?;
    let used = used(&job.parameters);
    for (name, value) in &used {
        match asked.echo.get_mut(name) {
            Some(given) if given.is_null() => *given = value.clone(),
            _ => {}
        }
    }
    let info = info(&job, images, &asked, &used);
    let files: Vec<String> = match asked.send_images {
        true => images.iter().map(|image| image.image.to_base64()).collect(),
        false => Vec::new(),
    };
    let told = Pictures { images: files, parameters: asked.echo, info: info.to_string() };
    Ok(body::json(StatusCode::OK, &told))
}

/// What the job was run with, by the web UI's names.
fn used(parameters: &Value) -> Map<String, Value> {
    let name = |field: &str| parameters[field].as_str().unwrap_or_default();
    let sampler =
        name("sampler").parse().map_or_else(|_| name("sampler"), |sampler| names::of_sampler(sampler).0);
    let mut used = Map::new();
    for (theirs, value) in [
        ("sampler_name", Value::from(sampler)),
        ("scheduler", schedule_label(name("schedule")).into()),
        ("steps", parameters["steps"].clone()),
        ("cfg_scale", parameters["guidance_scale"].clone()),
        ("width", parameters["width"].clone()),
        ("height", parameters["height"].clone()),
    ] {
        used.insert(theirs.to_owned(), value);
    }
    used
}

fn schedule_label(name: &str) -> &str {
    names::schedules().find(|known| known.schedule.as_str() == name).map_or(name, |known| known.label)
}

/// `Processed.js()` of the web UI, and beside it `job_id` and `ignored`: the fields that were sent and say something
/// that is not done here.
fn info(job: &JobView, images: &[EventImage], asked: &Asked, used: &Map<String, Value>) -> Value {
    let parameters = &job.parameters;
    let texts: Vec<String> = images.iter().map(infotext).collect();
    let read: Vec<Parameters> = texts.iter().map(|text| Parameters::parse(text)).collect();
    let seeds: Vec<u64> = images.iter().map(|image| image.seed).collect();
    let prompts: Vec<&str> = read.iter().map(|read| read.prompt.as_str()).collect();
    let negatives: Vec<&str> = read.iter().map(|read| read.negative_prompt.as_str()).collect();
    let strength = match asked.kind {
        Kind::Txt2Img => parameters["hires"]["strength"].clone(),
        Kind::Img2Img => parameters["strength"].clone(),
    };
    json!({
        "prompt": prompts.first().copied().or(parameters["prompt"].as_str()),
        "all_prompts": prompts,
        "negative_prompt": negatives.first().copied().or(parameters["negative_prompt"].as_str()),
        "all_negative_prompts": negatives,
        "seed": parameters["seed"],
        "all_seeds": seeds,
        "subseed": parameters["seed"],
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "width": used["width"],
        "height": used["height"],
        "sampler_name": used["sampler_name"],
        "cfg_scale": used["cfg_scale"],
        "steps": used["steps"],
        "batch_size": asked.batch_size,
        "restore_faces": false,
        "face_restoration_model": null,
        "sd_model_name": job.model,
        "sd_model_hash": "",
        "sd_vae_name": null,
        "sd_vae_hash": null,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": strength,
        "extra_generation_params": {"Schedule type": used["scheduler"]},
        "index_of_first_image": 0,
        "infotexts": texts,
        "styles": [],
        "job_timestamp": timestamp(job.started_ms.unwrap_or(job.created_ms)),
        "clip_skip": parameters["clip_skip"].as_u64().unwrap_or_default() + 1,
        "is_using_inpainting_conditioning": false,
        "version": concat!("sd-worker ", env!("CARGO_PKG_VERSION")),
        "job_id": job.job_id,
        "ignored": asked.ignored,
    })
}

/// What the file tells about its making.
fn infotext(image: &EventImage) -> String {
    let texts = sd_engine::read_texts(image.image.bytes()).ok();
    texts.and_then(|texts| texts.parameters).unwrap_or_default()
}

/// `20261121170000` in UTC. The days are counted off in years of 400-year cycles that begin in March, as Howard Hinnant's
/// "chrono-Compatible Low-Level Date Algorithms" does it.
pub(crate) fn timestamp(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, over) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + cycle * 400 + over;
    format!("{year:04}{month:02}{day:02}{:02}{:02}{:02}", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_dates() {
        // date -u -d @SECONDS +%Y%m%d%H%M%S
        for (seconds, date) in [
            (0, "19700101000000"),
            (951_782_399, "20000228235959"),
            (951_782_400, "20000229000000"),
            (1_709_251_199, "20240229235959"),
            (4_107_542_400, "21000301000000"),
            (1_795_280_400, "20261121170000"),
        ] {
            assert_eq!(timestamp(seconds * 1000), date);
        }
    }
}
