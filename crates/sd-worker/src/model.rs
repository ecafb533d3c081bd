//! From the flags that name a model to a loaded pipeline.

use std::path::Path;

use sd_inference::registry::Registry;
use sd_inference::{DType, Device, LoadOptions, ModelFiles, ModelSource, Pipeline, VaeTiling};

use crate::args::{DeviceName, DtypeName, ModelArgs, PlaceArgs, TilingName};
use crate::demo;
use crate::exit::Failure;

/// The names of models, with those of the file that the flags name.
pub(crate) fn registry(models_file: Option<&Path>) -> Result<Registry, Failure> {
    let registry = Registry::from_environment();
    match models_file {
        Some(path) => registry.with_file(path).map_err(Failure::refused),
        None => Ok(registry),
    }
}

/// The model that the flags name, as a source of pipelines.
pub(crate) fn source(name: &str, place: &PlaceArgs) -> Result<ModelSource, Failure> {
    files(name, place).map(ModelSource::Files)
}

/// The files of the model that the flags name.
pub(crate) fn files(name: &str, place: &PlaceArgs) -> Result<ModelFiles, Failure> {
    let (config, vae) = (place.model_config.as_deref(), place.vae.as_deref());
    let files = match (name == demo::NAME, vae) {
        (true, Some(vae)) => demo::files().with_vae(vae),
        (true, None) => Ok(demo::files()),
        (false, vae) => registry(place.models_file.as_deref())?.open(name, config, vae),
    };
    let files = match &place.unet {
        Some(unet) => files.and_then(|files| files.with_unet(unet)),
        None => files,
    };
    files.map_err(Failure::refused)
}

/// The model that may take over late in a run.
fn refiner(args: &ModelArgs) -> Result<Option<ModelSource>, Failure> {
    let place = PlaceArgs { models_file: args.place.models_file.clone(), ..PlaceArgs::default() };
    args.refiner.as_deref().map(|name| source(name, &place)).transpose()
}

/// The device of this name.
pub(crate) fn device(name: DeviceName) -> Result<Device, Failure> {
    let device = match name {
        DeviceName::Cpu => Ok(Device::Cpu),
        DeviceName::Cuda(number) => Device::new_cuda(number),
        DeviceName::Metal => Device::new_metal(0),
    };
    device.map_err(|error| Failure::refused(format!("device {name} cannot be used: {error}")))
}

/// What the flags say about loading.
pub(crate) fn options(args: &ModelArgs) -> Result<LoadOptions, Failure> {
    options_on(device(args.device)?, args)
}

/// What the flags say about loading, on this device.
pub(crate) fn options_on(device: Device, args: &ModelArgs) -> Result<LoadOptions, Failure> {
    let dtype = match args.dtype {
        DtypeName::Auto if device.is_cpu() && sd_inference::cpu_multiplies_bf16() => DType::BF16,
        DtypeName::Auto => DType::F32,
        DtypeName::F32 => DType::F32,
        DtypeName::Bf16 => DType::BF16,
        DtypeName::F16 => DType::F16,
    };
    Ok(LoadOptions {
        device,
        dtype,
        memory: args.memory_limit.unwrap_or_default(),
        vae_tiling: match args.vae_tiling {
            TilingName::Auto => VaeTiling::Auto,
            TilingName::Always => VaeTiling::Always,
            TilingName::Never => VaeTiling::Never,
        },
        embeddings: args.embedding.clone(),
        embeddings_dir: args.embeddings_dir.clone(),
        preview_vae: args.preview_vae.clone(),
        upscaler: args.upscaler.clone(),
        refiner: refiner(args)?,
        ..LoadOptions::default()
    })
}

/// Refuses flags that name several models.
pub(crate) fn only_one(args: &ModelArgs) -> Result<(), Failure> {
    match args.model.len() {
        0 | 1 => Ok(()),
        count => Err(Failure::refused(format!("model: there are {count}; only `serve` takes several"))),
    }
}

/// Loads the model that the flags name. Memory must suffice for pictures of `size`, where that is known.
pub(crate) fn load(args: &ModelArgs, size: [Option<u32>; 2]) -> Result<Pipeline, Failure> {
    only_one(args)?;
    let [width, height] = size.map(|side| side.map(|side| side as usize));
    let options = LoadOptions { width, height, ..options(args)? };
    let pipeline = Pipeline::load(&source(args.name(), &args.place)?, &options)?;
    for note in &pipeline.info().notes {
        tracing::warn!("{note}");
    }
    Ok(pipeline)
}
