//! `POST /sdapi/v1/extra-single-image`: a finished picture enlarged by a network.

use bytes::Bytes;
use http::{Response, StatusCode};
use operations_contract::{ImageData, Operation, ParsedOperation};
use serde_json::{Map, Value};

use super::error_body;
use super::payload::{Payload, says_nothing};
use super::settings::Settings;
use super::views::Enlarged;
use crate::api::Api;
use crate::body::{self, ResponseBody};
use crate::caller::Caller;
use crate::error::ApiError;
use crate::intake::Upload;
use crate::submission::{self, Translated};
use crate::{idempotency, wait};

/// The name by which `upscalers` lists the worker's network.
const NETWORK: &str = "Network";
/// `upscaling_resize` when the request says nothing.
const SCALE: f64 = 2.0;

pub(crate) async fn handle(
    api: &Api,
    caller: &Caller,
    key: Option<String>,
    body: Upload,
) -> Result<Response<ResponseBody>, ApiError> {
    let settings = api.a1111().settings(caller);
    let translate = move |body: Bytes| {
        let fields = super::object(&body)?;
        let fingerprint = idempotency::fingerprint("extra-single-image", &fields, &[], &[]);
        let (operation, asked) = translate(&fields, &settings);
        Ok(Translated { operation, asked, fingerprint })
    };
    let submitted = submission::submit(api, caller, key, body, translate).await;
    let (accepted, ignored) = submitted.map_err(|error| error.renamed(their_name))?;
    let (id, repeated) = (accepted.job_id, accepted.repeated);
    api.a1111().add(api, caller, id.clone());
    let mut response = match wait::end_of(api, &id).await {
        Ok(images) => {
            let image = images.first().map(|image| image.image.to_base64());
            // The web UI tells about the picture in HTML here, which nobody reads.
            body::json(StatusCode::OK, &Enlarged { html_info: "", image, job_id: id.clone(), ignored })
        }
        Err(error) => error.respond(error_body),
    };
    wait::name_job(response.headers_mut(), &id);
    idempotency::mark(response.headers_mut(), repeated);
    Ok(response)
}

pub(super) fn their_name(ours: &str) -> Option<String> {
    let theirs = match ours {
        // Without a network it is the operation that is beyond the worker.
        "model" | "operation" => "upscaler_1",
        "scale" => "upscaling_resize",
        _ => return None,
    };
    Some(theirs.to_owned())
}

/// The operation, and the fields that say something which is not done here and changes no picture.
pub(super) fn translate(fields: &Map<String, Value>, settings: &Settings) -> (ParsedOperation, Vec<String>) {
    let mut payload = Payload::new(fields);
    payload.put("operation", "image_upscale");
    if let Some((name, output)) = settings.fields().into_iter().find(|(name, _)| *name == "output") {
        payload.put(name, output);
    }
    payload.pass("image", "image");
    network(&mut payload);
    if let Some(scale) = scale(&mut payload) {
        payload.put("scale", scale);
    }
    let zero = |value: &Value| value.as_f64() == Some(0.0);
    let no_faces = "is possible as 0 only: there is no network for faces";
    payload.only("gfpgan_visibility", zero, no_faces);
    payload.only("codeformer_visibility", zero, no_faces);
    payload.only("extras_upscaler_2_visibility", zero, "is possible as 0 only: one network enlarges");
    // They say how the others count, or what the web UI shows.
    for name in ["upscaler_2", "codeformer_weight", "upscale_first", "show_extras_results"] {
        payload.take(name);
    }
    let (operation, faults, ignored) = payload.into_parts();
    let mut parsed = Operation::parse(&operation);
    submission::tell_first(faults, &mut parsed, their_name);
    (parsed, ignored)
}

/// The network that is named; without one nothing would be enlarged.
fn network(payload: &mut Payload<'_>) {
    match payload.take("upscaler_1") {
        Some(name) if name == NETWORK => {}
        Some(name) if !says_nothing(name) => payload.put("model", name.clone()),
        other => {
            let given = other.cloned().unwrap_or_default();
            payload.refuse("upscaler_1", &given, format!("must be `{NETWORK}` or a network's own name"));
        }
    }
}

/// By how much sides become longer: as it is sent, or as it follows from the size that is asked for.
fn scale(payload: &mut Payload<'_>) -> Option<f64> {
    let mode = payload.whole("resize_mode").unwrap_or_default();
    let scale = payload.number("upscaling_resize").unwrap_or(SCALE);
    let sides = ["upscaling_resize_w", "upscaling_resize_h"].map(|name| payload.whole(name));
    payload.take("upscaling_crop");
    if mode == 0 {
        return Some(scale);
    }
    // A picture that cannot be read is refused by the contract.
    let image = payload.take("image").and_then(|image| ImageData::from_text(image.as_str()?).ok())?;
    let (width, height) = sd_engine::read_texts(image.bytes()).ok()?.size;
    match sides {
        [Some(wide), Some(high)]
            if mode == 1 && wide.checked_mul(height.into()) == high.checked_mul(width.into()) =>
        {
            Some(wide as f64 / f64::from(width.max(1)))
        }
        _ => {
            let message = "is possible as 0, and as 1 where upscaling_resize_w and upscaling_resize_h have the picture's ratio";
            payload.refuse("resize_mode", &mode.into(), message);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A picture of 4 by 2 pixels.
    fn picture() -> String {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::DynamicImage::new_rgb8(4, 2).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        ImageData::new(bytes.into_inner()).to_base64()
    }

    fn sent(more: &Value) -> (ParsedOperation, Vec<String>) {
        let mut fields = json!({"image": picture(), "upscaler_1": "Network"});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        translate(fields.as_object().unwrap(), &Settings::default())
    }

    #[test]
    fn every_field_has_its_place() {
        for (more, model, scale) in [
            (json!({}), None, 2.0),
            (json!({"upscaling_resize": 3.5, "upscaling_resize_w": 7, "upscaling_crop": true}), None, 3.5),
            (json!({"upscaler_1": "x4", "upscaler_2": "None", "gfpgan_visibility": 0}), Some("x4"), 2.0),
            (json!({"resize_mode": 1, "upscaling_resize_w": 12, "upscaling_resize_h": 6}), None, 3.0),
        ] {
            let (parsed, ignored) = sent(&more);
            assert_eq!((&parsed.faults[..], &ignored[..]), (&[][..], &[][..]), "{more}");
            let Some(Operation::ImageUpscale(request)) = parsed.operation else { panic!("{more}") };
            assert_eq!((request.model.as_deref(), request.scale), (model, Some(scale)), "{more}");
        }
        assert_eq!(sent(&json!({"firm": "acme"})).1, ["firm"]);
    }

    #[test]
    fn what_would_be_another_picture_is_refused_by_its_name() {
        for (more, field) in [
            (json!({"upscaler_1": "None"}), "upscaler_1"),
            (json!({"gfpgan_visibility": 0.5}), "gfpgan_visibility"),
            (json!({"codeformer_visibility": 1}), "codeformer_visibility"),
            (
                json!({"upscaler_2": "x2", "extras_upscaler_2_visibility": 0.5}),
                "extras_upscaler_2_visibility",
            ),
            (json!({"resize_mode": 1, "upscaling_resize_w": 12, "upscaling_resize_h": 12}), "resize_mode"),
            (json!({"resize_mode": 1}), "resize_mode"),
            (json!({"upscaling_resize": 9}), "scale"),
            (json!({"image": null}), "image"),
        ] {
            let faults: Vec<_> = sent(&more).0.faults.into_iter().map(|fault| fault.field).collect();
            assert_eq!(faults, [field], "{more}");
        }
    }
}
