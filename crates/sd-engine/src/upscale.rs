//! `image_upscale` before the engine: what the worker has against it, and what it becomes.

use operations_contract::{
    FieldError, ImageFormat, ImageUpscale, ModelCapabilities, Operation, UpscaleModel,
};
use sd_inference::{Seamless, UpscaleOptions, UpscaleTiles};

use crate::images;
use crate::metadata::read_texts;
use crate::picture::Picture;
use crate::resolve::{Inputs, Objections, Resolved, named};
use crate::task::{Task, UpscaleTask};

/// Holds an upscale against what the worker can do, without looking into its picture.
pub(crate) fn objections(operation: &Operation, model: &ModelCapabilities) -> Objections {
    let mut objections = Objections::default();
    named(&mut objections.unsupported, model, "operation", Some(operation.kind()), &model.operations);
    objections
}

/// The network that a request means; `None` where there is none of that name.
pub(crate) fn chosen<'a>(name: Option<&str>, model: &'a ModelCapabilities) -> Option<&'a UpscaleModel> {
    match name {
        Some(name) => model.upscale_models.iter().find(|known| known.name == name),
        None => model.upscale_models.first(),
    }
}

/// Fills in what is open and decodes the picture.
pub(crate) fn resolve(
    mut request: ImageUpscale,
    model: &ModelCapabilities,
) -> Result<Resolved, Vec<FieldError>> {
    let told = read_texts(request.image.bytes()).ok().and_then(|texts| texts.parameters);
    let mut inputs = Inputs::default();
    let image = inputs.take("image", &mut request.image, images::picture);
    let Some(network) = chosen(request.model.as_deref(), model) else {
        return Err(vec![FieldError::new("model", "no network to enlarge with is loaded")]);
    };
    let Some(image) = image else { return Err(inputs.faults) };
    let task = task(&request, image, network).map_err(|fault| vec![fault])?;
    request.model = Some(network.name.clone());
    request.scale = Some(task.options.scale.unwrap_or(f64::from(network.scale)));
    let operation = Operation::ImageUpscale(request);
    let parameters = inputs.describe(&operation);
    Ok(Resolved { task: Task::Upscale(task), operation, parameters, notes: inputs.notes, told })
}

fn task(request: &ImageUpscale, image: Picture, network: &UpscaleModel) -> Result<UpscaleTask, FieldError> {
    let (tile, margin) = (request.tile as usize, request.margin as usize);
    let Some(tiles) = UpscaleTiles::new(tile, margin) else {
        let message = format!("{margin} is more than a quarter of the tile's {tile} pixels");
        return Err(FieldError::new("margin", message).with_value(request.margin).with_limit(tile / 4));
    };
    let options = UpscaleOptions {
        scale: request.scale,
        tiles,
        seamless: Seamless { x: request.tiling.x, y: request.tiling.y },
    };
    let size = (image.width(), image.height());
    let (width, height) = options.result_size(size, network.scale as usize).map_err(fault)?;
    let format = request.output.format;
    if let Some(most) = longest_side(format).filter(|most| width.max(height) > *most) {
        let message =
            format!("the result has {width} x {height} pixels; a {format} file takes {most} a side");
        return Err(FieldError::new("output.format", message).with_value(format.as_str()).with_limit(most));
    }
    let (rows, columns) = (size.1 as usize, size.0 as usize);
    let steps = tiles.count(rows, columns, network.size_multiple.max(1) as usize, options.seamless);
    let steps = u32::try_from(steps).unwrap_or(u32::MAX);
    Ok(UpscaleTask { model: network.name.clone(), image, options, width, height, steps })
}

/// The longest side in pixels that a file of this format holds, where the largest result is longer.
fn longest_side(format: ImageFormat) -> Option<u32> {
    match format {
        ImageFormat::Webp => Some(16383),
        ImageFormat::Jpeg => Some(65535),
        _ => None,
    }
}

fn fault(error: sd_inference::Error) -> FieldError {
    match error {
        sd_inference::Error::InvalidRequest { field, value, limit } => {
            FieldError::new(field, format!("is {value}, but must be {limit}"))
                .with_value(value)
                .with_limit(limit)
        }
        error => FieldError::new("image", error.to_string()),
    }
}
