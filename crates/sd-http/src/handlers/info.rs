//! `GET /v1/info`

use http::{Response, StatusCode};
use operations_contract::bounds;

use crate::api::Api;
use crate::body::{self, ResponseBody};
use crate::views::{Info, Limits, QueueView};

pub(crate) fn handle(api: &Api) -> Response<ResponseBody> {
    let (config, router) = (api.config(), api.router());
    let model = router.readiness().ok();
    let (waiting, capacity) = router.queue_usage();
    let info = Info {
        implementation: "sd-worker",
        version: config.version.clone(),
        features: config.features.clone(),
        model: model.as_ref().map(|model| model.id.clone()),
        device: model.as_ref().map(|model| model.device.clone()),
        dtype: model.as_ref().map(|model| model.dtype.clone()),
        queue: QueueView { waiting, capacity },
        limits: Limits {
            max_body_bytes: config.max_body_bytes,
            max_prompt_chars: bounds::MAX_PROMPT_CHARS,
            max_side: *bounds::SIDE.end(),
            max_steps: *bounds::STEPS.end(),
            max_images: *bounds::NUM_IMAGES.end(),
            max_deadline_ms: *bounds::DEADLINE_MS.end(),
        },
    };
    body::json(StatusCode::OK, &info)
}
