//! `GET /v1/info`

use http::{Response, StatusCode};
use operations_contract::bounds;
use serde_json::json;

use crate::api::Api;
use crate::body::{self, ResponseBody};

pub(crate) fn handle(api: &Api) -> Response<ResponseBody> {
    let (config, router) = (api.config(), api.router());
    let model = router.readiness().ok();
    let (waiting, capacity) = router.queue_usage();
    body::json(
        StatusCode::OK,
        &json!({
            "implementation": "sd-worker",
            "version": config.version,
            "features": config.features,
            "model": model.as_ref().map(|model| &model.id),
            "device": model.as_ref().map(|model| &model.device),
            "dtype": model.as_ref().map(|model| &model.dtype),
            "queue": {"waiting": waiting, "capacity": capacity},
            "limits": {
                "max_body_bytes": config.max_body_bytes,
                "max_prompt_chars": bounds::MAX_PROMPT_CHARS,
                "max_side": bounds::SIDE.end(),
                "max_steps": bounds::STEPS.end(),
                "max_images": bounds::NUM_IMAGES.end(),
                "max_deadline_ms": bounds::DEADLINE_MS.end(),
            },
        }),
    )
}
