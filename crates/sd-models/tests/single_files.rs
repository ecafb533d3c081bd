//! Single-file checkpoints: what diffusers loads from them, what they are taken for, and what is refused.

#![allow(clippy::unwrap_used)]

#[path = "support/spelt.rs"]
mod spelt;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use sd_models::clip::{ClipTextConfig, ClipTextModel};
use sd_models::unet::{Unet2DConditionModel, UnetConfig};
use sd_models::vae::AutoencoderKl;
use sd_models::{Error, ModelFiles, Result, Weights, inspect, save};
use serde_json::Value;
use spelt::{FAMILIES, Values};

const PARTS: [(&str, &str); 4] = [
    ("unet", "diffusion_pytorch_model"),
    ("vae", "diffusion_pytorch_model"),
    ("text_encoder", "model"),
    ("text_encoder_2", "model"),
];

fn weights(files: &ModelFiles, part: &str) -> Weights {
    let (folder, stem) = PARTS.iter().find(|(folder, _)| *folder == part).unwrap();
    Weights::open(files, folder, stem, &Device::Cpu, DType::F32).unwrap()
}

/// The tensor of our own view of the model, whether or not its text encoders are named `text_model`.
fn loaded(weights: &Weights, name: &str, shape: &[usize]) -> Result<Vec<u8>> {
    let prefixed = format!("text_model.{name}");
    let name = if weights.contains(&prefixed) { &prefixed } else { name };
    let tensor = weights.tensor(name, shape)?;
    Ok(tensor.flatten_all()?.to_vec1::<f32>()?.into_iter().flat_map(f32::to_le_bytes).collect())
}

fn crc32(bytes: &[u8]) -> u32 {
    let byte = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| match crc & 1 {
            1 => crc >> 1 ^ 0xedb8_8320,
            _ => crc >> 1,
        })
    };
    !bytes.iter().fold(u32::MAX, byte)
}

fn config_folder(family: &str) -> Option<ModelFiles> {
    Some(ModelFiles::folder(spelt::model(family)).unwrap())
}

/// The fixtures hold the checksums of what `from_single_file` gave; the folder's own tensors must be the same.
#[test]
fn every_tensor_is_the_one_that_diffusers_loads() {
    for family in FAMILIES {
        let folder = tempfile::tempdir().unwrap();
        let path = spelt::write(family, folder.path());
        let files = ModelFiles::open(&path, config_folder(family)).unwrap();
        let mut compared = 0;
        for (part, rows) in spelt::spellings(family) {
            let own = spelt::tensors(&spelt::model(family).join(&part));
            let weights = weights(&files, &part);
            for (name, crc) in rows.values().flat_map(|row| &row.names) {
                let Values { shape, bytes } = &own[name];
                let found = loaded(&weights, name, shape).unwrap();
                assert!(found == *bytes, "{family} {part} {name} is not the folder's");
                assert_eq!(crc32(&found), *crc, "{family} {part} {name} is not what diffusers loads");
                compared += 1;
            }
            assert_eq!(rows.values().map(|row| row.names.len()).sum::<usize>(), own.len(), "{family} {part}");
        }
        println!("{family}: {compared} tensors");
    }
}

/// The part's own definition finds everything that it asks for, and its memory is told as for the folder.
#[test]
fn the_parts_load_and_take_the_memory_of_the_folder() {
    for family in FAMILIES {
        let folder = tempfile::tempdir().unwrap();
        let single = ModelFiles::open(spelt::write(family, folder.path()), config_folder(family)).unwrap();
        let whole = config_folder(family).unwrap();
        Unet2DConditionModel::load(
            &weights(&single, "unet"),
            single.json("unet/config.json").unwrap(),
            "unet",
        )
        .unwrap();
        AutoencoderKl::load(&weights(&single, "vae"), single.json("vae/config.json").unwrap(), "vae")
            .unwrap();
        for part in ["text_encoder", "text_encoder_2"] {
            if whole.contains(&format!("{part}/config.json")) {
                let config: ClipTextConfig = single.json(&format!("{part}/config.json")).unwrap();
                ClipTextModel::load(&weights(&single, part), config, part).unwrap();
            }
        }
        for (part, _) in PARTS.iter().filter(|(part, _)| whole.contains(&format!("{part}/config.json"))) {
            let told = [&single, &whole].map(|files| weights(files, part).loaded_bytes());
            assert_eq!(told[0], told[1], "{family} {part}");
        }
    }
}

/// A file with these tensors, each filled with alternating `-spread` and `spread`.
fn marked(folder: &Path, tensors: &[(&str, &[usize])], spread: f32, metadata: &[(&str, &str)]) -> ModelFiles {
    let path = folder.join("marked.safetensors");
    let values = |shape: &[usize]| {
        let count: usize = shape.iter().product();
        let bytes = (0..count).flat_map(|i| if i % 2 == 0 { spread } else { -spread }.to_le_bytes());
        Values { shape: shape.to_vec(), bytes: bytes.collect() }
    };
    let tensors: BTreeMap<_, _> =
        tensors.iter().map(|(name, shape)| ((*name).to_owned(), values(shape))).collect();
    std::fs::write(&path, spelt::bytes(&tensors, metadata)).unwrap();
    ModelFiles::open(path, None).unwrap()
}

const SD1: (&str, &[usize]) = ("cond_stage_model.transformer.text_model.final_layer_norm.bias", &[768]);
const SD2: (&str, &[usize]) = ("cond_stage_model.model.ln_final.bias", &[1024]);
const SDXL: (&str, &[usize]) = ("conditioner.embedders.1.model.ln_final.bias", &[1280]);
const REFINER: (&str, &[usize]) = ("conditioner.embedders.0.model.ln_final.bias", &[1280]);
const MARK: (&str, &[usize]) =
    ("model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias", &[320]);

fn first(channels: &'static [usize; 4]) -> (&'static str, &'static [usize]) {
    ("model.diffusion_model.input_blocks.0.0.weight", channels)
}

#[test]
fn family_inpainting_and_prediction_are_told_from_the_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let (four, nine) = (first(&[1, 4, 3, 3]), first(&[1, 9, 3, 3]));
    let width = |width: &'static [usize; 2]| {
        ("model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight", &width[..])
    };
    let v_metadata = [("modelspec.prediction_type", "v")];
    let epsilon_metadata = [("modelspec.prediction_type", "epsilon")];
    for (tensors, spread, metadata, [class, prediction, text_width, size, channels]) in [
        (vec![four, SD1], 0.2, &[][..], ["StableDiffusionPipeline", "epsilon", "768", "64", "4"]),
        (vec![nine, SD1], 0.2, &[], ["StableDiffusionInpaintPipeline", "epsilon", "768", "64", "9"]),
        (vec![four, SD1], 0.2, &v_metadata, ["StableDiffusionPipeline", "v_prediction", "768", "64", "4"]),
        (vec![four, SD2, MARK], 0.2, &[], ["StableDiffusionPipeline", "v_prediction", "1024", "96", "4"]),
        (vec![four, SD2, MARK], 0.05, &[], ["StableDiffusionPipeline", "epsilon", "1024", "64", "4"]),
        (
            vec![four, SD2, MARK],
            0.2,
            &epsilon_metadata,
            ["StableDiffusionPipeline", "epsilon", "1024", "64", "4"],
        ),
        (vec![nine, SD2, MARK], 0.2, &[], ["StableDiffusionInpaintPipeline", "epsilon", "1024", "64", "9"]),
        (vec![four, SDXL], 0.2, &[], ["StableDiffusionXLPipeline", "epsilon", "2048", "128", "4"]),
        (vec![nine, SDXL], 0.2, &[], ["StableDiffusionXLInpaintPipeline", "epsilon", "2048", "128", "9"]),
        (
            vec![four, SDXL, ("v_pred", &[1]), ("ztsnr", &[1])],
            0.2,
            &[],
            ["StableDiffusionXLPipeline", "v_prediction", "2048", "128", "4"],
        ),
        (
            vec![four, width(&[320, 1024])],
            0.2,
            &[],
            ["StableDiffusionPipeline", "epsilon", "1024", "64", "4"],
        ),
        (
            vec![four, width(&[640, 2048])],
            0.2,
            &[],
            ["StableDiffusionXLPipeline", "epsilon", "2048", "128", "4"],
        ),
        (vec![four, REFINER], 0.2, &[], ["StableDiffusionXLImg2ImgPipeline", "epsilon", "1280", "128", "4"]),
        (
            vec![four, width(&[768, 1280])],
            0.2,
            &[],
            ["StableDiffusionXLImg2ImgPipeline", "epsilon", "1280", "128", "4"],
        ),
    ] {
        let files = marked(folder.path(), &tensors, spread, metadata);
        let what = format!("{tensors:?} {metadata:?}");
        assert_eq!(files.json::<Value>("model_index.json").unwrap()["_class_name"], class, "{what}");
        let scheduler: Value = files.json("scheduler/scheduler_config.json").unwrap();
        assert_eq!(scheduler["prediction_type"], prediction, "{what}");
        let zero_snr = tensors.iter().any(|(name, _)| *name == "ztsnr");
        assert_eq!(scheduler["rescale_betas_zero_snr"] == true, zero_snr, "{what}");
        let unet: UnetConfig = files.json("unet/config.json").unwrap();
        assert_eq!(unet.text_width().to_string(), text_width, "{what}");
        assert_eq!(unet.sample_size.unwrap().to_string(), size, "{what}");
        assert_eq!(unet.in_channels.to_string(), channels, "{what}");
    }
}

/// A UNet alone, in each naming and from a whole model: the same tensors.
#[test]
fn a_unet_is_taken_from_files_in_any_naming() {
    for family in FAMILIES {
        let folder = tempfile::tempdir().unwrap();
        let base = || config_folder(family).unwrap();
        let whole = spelt::single_file(family, None);
        let prefix = "model.diffusion_model.";
        let bare: BTreeMap<_, _> = whole
            .iter()
            .filter_map(|(name, values)| Some((name.strip_prefix(prefix)?.to_owned(), values.clone())))
            .collect();
        let own = spelt::tensors(&spelt::model(family).join("unet"));
        let path = folder.path().join("unet.safetensors");
        for tensors in [&own, &bare, &whole] {
            std::fs::write(&path, spelt::bytes(tensors, &[])).unwrap();
            let files = base().with_unet(&path).unwrap();
            let weights = weights(&files, "unet");
            for (name, Values { shape, bytes }) in &own {
                assert!(loaded(&weights, name, shape).unwrap() == *bytes, "{family} {name}");
            }
            Unet2DConditionModel::load(&weights, files.json("unet/config.json").unwrap(), "unet").unwrap();
        }
        let files = base().with_unet(spelt::model(family)).unwrap();
        assert!(weights(&files, "unet").contains("conv_in.weight"));
    }
    let refused =
        |model: &str, path: &Path| config_folder(model).unwrap().with_unet(path).unwrap_err().to_string();
    let error = refused("sd15", &spelt::model("sdxl"));
    assert!(error.contains("width 96") && error.contains("give 32"), "{error}");
    let error =
        refused("sd15", &spelt::fixtures().join("sd15/model/vae/diffusion_pytorch_model.safetensors"));
    assert!(error.contains("no UNet") && error.contains("vae"), "{error}");
    let error =
        refused("sdxl", &spelt::fixtures().join("refiner/model/unet/diffusion_pytorch_model.safetensors"));
    assert!(error.contains("width 64") && error.contains("give 96"), "{error}");
    assert!(refused("sd15", Path::new("/nowhere.safetensors")).contains("no such file"));
    assert!(refused("sd15", &spelt::fixtures()).contains("config.json"));
}

#[test]
fn an_inpainting_file_gives_its_nine_channels() {
    let folder = tempfile::tempdir().unwrap();
    let unet = spelt::fixtures().join("sd15/unet-inpaint");
    let path = folder.path().join("inpaint.safetensors");
    std::fs::write(&path, spelt::bytes(&spelt::single_file("sd15", Some(&unet)), &[])).unwrap();
    let files = ModelFiles::open(&path, None).unwrap();
    assert_eq!(inspect::model(&files).unwrap().family, Some("SD 1.x"));
    assert!(inspect::model(&files).unwrap().inpainting);
    let weights = weights(&files, "unet");
    for (name, Values { shape, bytes }) in spelt::tensors(&unet) {
        assert!(loaded(&weights, &name, &shape).unwrap() == bytes, "{name}");
    }
}

#[test]
fn what_is_no_model_is_refused_by_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, tensors: &[(&str, &[usize])]| {
        let path = folder.path().join(name);
        let zeros = |shape: &[usize]| Values {
            shape: shape.to_vec(),
            bytes: vec![0; 4 * shape.iter().product::<usize>()],
        };
        let tensors: BTreeMap<_, _> =
            tensors.iter().map(|(name, shape)| ((*name).to_owned(), zeros(shape))).collect();
        std::fs::write(&path, spelt::bytes(&tensors, &[])).unwrap();
        path
    };
    let lora = ("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", &[4, 8][..]);
    let eight = first(&[1, 8, 3, 3]);
    let flux = ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", &[1][..]);
    for (tensors, word) in [
        (&[lora][..], "lora"),
        (&[("decoder.conv_in.weight", &[1, 1, 3, 3][..])], "vae"),
        (&[eight, SD1], "8 channels"),
        (&[flux], "another family"),
        (&[first(&[1, 4, 3, 3]), SDXL, ("edm_mean", &[4])], "EDM"),
        (&[first(&[1, 4, 3, 3])], "no text encoder"),
    ] {
        let error = ModelFiles::open(write("odd.safetensors", tensors), None).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("odd.safetensors"), "{word}: {error}");
    }
    let pickle = folder.path().join("old.CKPT");
    std::fs::write(&pickle, b"PK\x03\x04").unwrap();
    let error = ModelFiles::open(&pickle, None).unwrap_err().to_string();
    assert!(error.contains("old.CKPT") && error.contains("pickle"), "{error}");
    let renamed = folder.path().join("renamed.safetensors");
    std::fs::copy(&pickle, &renamed).unwrap();
    let error = ModelFiles::open(&renamed, None).unwrap_err().to_string();
    assert!(error.contains("renamed.safetensors") && error.contains("pickle"), "{error}");
}

/// A tiny model under the built-in configuration of SD 1.5: the first tensor is already too small.
#[test]
fn a_wrong_shape_names_file_key_and_both_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let files = ModelFiles::open(spelt::write("sd15", folder.path()), None).unwrap();
    let config = files.json("unet/config.json").unwrap();
    let error = Unet2DConditionModel::load(&weights(&files, "unet"), config, "unet/config.json").unwrap_err();
    let Error::WrongShape { file, key, expected, found } = error else { panic!("{error}") };
    assert!(file.ends_with("model.safetensors"), "{file}");
    assert_eq!((key.as_str(), expected, found), ("conv_in.weight", vec![320, 4, 3, 3], vec![32, 4, 3, 3]));
}

#[test]
fn a_file_without_a_part_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let files = marked(folder.path(), &[first(&[1, 4, 3, 3]), SD1], 0.1, &[]);
    let open = |part| Weights::open(&files, part, "x", &Device::Cpu, DType::F32).err().unwrap().to_string();
    assert!(open("vae").contains("--vae"), "{}", open("vae"));
    assert!(open("text_encoder_2").contains("--model-config"), "{}", open("text_encoder_2"));
    // A folder that has the part gives it.
    let path = folder.path().join("marked.safetensors");
    let files = ModelFiles::open(path, config_folder("sd15")).unwrap();
    assert!(weights(&files, "vae").contains("decoder.conv_in.weight"));
}

/// Whatever happened to a file on its way, opening it ends with a model or an error that names it.
#[test]
fn damaged_files_are_refused_and_nothing_panics() {
    let whole = spelt::bytes(&spelt::single_file("sd15", None), &[]);
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.safetensors");
    let mut state = 7u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut cuts: Vec<usize> = (0..24).collect();
    for _ in 0..30 {
        cuts.extend([random(header), random(header), random(whole.len())]);
    }
    for length in cuts {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = ModelFiles::open(&path, None).expect_err("a cut file was accepted").to_string();
        assert!(error.contains("damaged.safetensors"), "{length}: {error}");
    }
    // Names, shapes, formats and offsets of a smaller file, so that each place is hit.
    let small = BTreeMap::from([first(&[1, 4, 3, 3]), SD1].map(|(name, shape)| {
        let bytes = vec![0; 4 * shape.iter().product::<usize>()];
        (name.to_owned(), Values { shape: shape.to_vec(), bytes })
    }));
    let small = spelt::bytes(&small, &[]);
    let header = 8 + u64::from_le_bytes(small[..8].try_into().unwrap()) as usize;
    for _ in 0..1000 {
        let mut damaged = small.clone();
        for _ in 0..=random(2) {
            damaged[random(header)] = random(256) as u8;
        }
        std::fs::write(&path, &damaged).unwrap();
        match ModelFiles::open(&path, None) {
            Err(error) => assert!(error.to_string().contains("damaged.safetensors"), "{error}"),
            Ok(files) => {
                // Where it still passes for a model, its parts are told or refused.
                if let Err(error) = inspect::model(&files) {
                    assert!(error.to_string().contains("damaged"), "{error}");
                }
            }
        }
    }
}

#[test]
fn a_vae_is_taken_from_files_and_folders_in_any_naming() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // The VAE of another model: other shapes, so that a mistake cannot stay hidden.
    let own = spelt::tensors(&spelt::model("sdxl").join("vae"));
    let all = spelt::single_file("sdxl", None);
    let inside: BTreeMap<_, _> = all
        .iter()
        .filter(|(name, _)| name.starts_with("first_stage_model."))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    let bare = inside.iter().map(|(n, v)| (n["first_stage_model.".len()..].to_owned(), v.clone())).collect();
    std::fs::write(at("prefixed.safetensors"), spelt::bytes(&inside, &[])).unwrap();
    std::fs::write(at("bare.safetensors"), spelt::bytes(&bare, &[])).unwrap();
    std::fs::write(at("diffusers.safetensors"), spelt::bytes(&own, &[])).unwrap();
    std::fs::write(at("checkpoint.safetensors"), spelt::bytes(&all, &[])).unwrap();
    let model = spelt::model("sdxl");
    for place in [
        at("prefixed.safetensors"),
        at("bare.safetensors"),
        at("diffusers.safetensors"),
        at("checkpoint.safetensors"),
        model.join("vae"),
        model.clone(),
    ] {
        let files = config_folder("sd15").unwrap().with_vae(&place).unwrap();
        let weights = weights(&files, "vae");
        for (name, Values { shape, bytes }) in &own {
            assert!(loaded(&weights, name, shape).unwrap() == *bytes, "{} {name}", place.display());
        }
        // A folder brings its configuration; a file is read with the model's.
        let scaling = files.json::<Value>("vae/config.json").unwrap()["scaling_factor"].as_f64().unwrap();
        assert_eq!(scaling, if place.is_dir() { 0.13025 } else { 0.18215 }, "{}", place.display());
        assert!(files.contains("unet/config.json") && files.contains("tokenizer/vocab.json"));
    }
    let text = spelt::model("sd15").join("text_encoder/model.safetensors");
    let error = config_folder("sd15").unwrap().with_vae(&text).unwrap_err().to_string();
    assert!(error.contains("text encoder"), "{error}");
    let error = config_folder("sd15").unwrap().with_vae(at("nowhere")).unwrap_err().to_string();
    assert!(error.contains("nowhere"), "{error}");
}

fn files_in(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => waiting.push(path),
                false => {
                    let name = path.strip_prefix(folder).unwrap().display().to_string();
                    all.insert(name, std::fs::read(&path).unwrap());
                }
            }
        }
    }
    all
}

#[test]
fn saving_and_loading_changes_nothing() {
    for family in FAMILIES {
        let folder = tempfile::tempdir().unwrap();
        let single = ModelFiles::open(spelt::write(family, folder.path()), config_folder(family)).unwrap();
        let mut parts = Vec::new();
        let to = folder.path().join("deep/saved");
        save::folder(&single, &to, None, &mut |part| parts.push(part.to_owned())).unwrap();
        assert_eq!(parts.len(), if family == "sdxl" { 4 } else { 3 });
        let saved = ModelFiles::folder(&to).unwrap();
        for part in &parts {
            for (name, Values { shape, bytes }) in spelt::tensors(&spelt::model(family).join(part)) {
                assert!(loaded(&weights(&saved, part), &name, &shape).unwrap() == bytes, "{family} {name}");
            }
        }
        // What was saved once is saved the same again, and so is what was converted.
        for dtype in [None, Some(DType::BF16), Some(DType::F16)] {
            let [once, twice] = ["once", "twice"].map(|name| folder.path().join(format!("{name}{dtype:?}")));
            save::folder(&saved, &once, dtype, &mut |_| ()).unwrap();
            save::folder(&ModelFiles::folder(&once).unwrap(), &twice, dtype, &mut |_| ()).unwrap();
            assert!(files_in(&once) == files_in(&twice), "{family} {dtype:?}");
        }
        assert!(files_in(&to) == files_in(&folder.path().join("onceNone")), "{family}");
    }
}

#[test]
fn conversion_rounds_to_nearest_and_refuses_what_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let files = config_folder("sdxl").unwrap();
    for (dtype, steps) in [(DType::F16, 11), (DType::BF16, 8)] {
        let to = folder.path().join(format!("{dtype:?}"));
        save::folder(&files, &to, Some(dtype), &mut |_| ()).unwrap();
        let saved = ModelFiles::folder(&to).unwrap();
        let part = inspect::model(&saved).unwrap().parts.remove(0);
        assert_eq!(part.formats.keys().collect::<Vec<_>>(), [&format!("{dtype:?}").to_lowercase()]);
        let [before, after] = [&files, &saved].map(|files| {
            let tensor = weights(files, "vae").tensor("decoder.conv_in.weight", &[24, 4, 3, 3]).unwrap();
            tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        });
        for (before, after) in before.iter().zip(&after) {
            assert!((before - after).abs() <= before.abs() / 2f32.powi(steps) + 1e-7, "{before} {after}");
        }
    }

    let large = Tensor::full(7e4f32, (1, 4, 3, 3), &Device::Cpu).unwrap();
    let values = large.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut tensors = spelt::single_file("sd15", None);
    tensors.insert(first(&[1, 4, 3, 3]).0.into(), Values { shape: vec![1, 4, 3, 3], bytes });
    let path = folder.path().join("large.safetensors");
    std::fs::write(&path, spelt::bytes(&tensors, &[])).unwrap();
    let large = ModelFiles::open(&path, config_folder("sd15")).unwrap();
    let to = folder.path().join("large");
    let error = save::folder(&large, &to, Some(DType::F16), &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("conv_in.weight") && error.contains("70000") && error.contains("bf16"), "{error}");
    assert!(!to.exists(), "an unfinished folder was left");
    save::folder(&large, &to, Some(DType::BF16), &mut |_| ()).unwrap();
    let error = save::folder(&large, &to, None, &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("not empty"), "{error}");
    assert_eq!(
        std::fs::read_dir(folder.path())
            .unwrap()
            .filter(|e| { e.as_ref().unwrap().file_name().to_string_lossy().ends_with(".part") })
            .count(),
        0
    );
}

#[test]
fn loose_parts_are_known_by_kind_and_family() {
    let inspect = |path: &Path| inspect::file(path).unwrap();
    let vae = inspect(&spelt::model("sd15").join("vae/diffusion_pytorch_model.safetensors"));
    assert_eq!((vae.kind, vae.family), ("vae", None));
    let text = inspect(&spelt::model("sd15").join("text_encoder/model.safetensors"));
    assert_eq!(text.kind, "text encoder");
    // A tiny autoencoder in one file, and its halves as the original repository names their tensors.
    for file in [
        "model/diffusion_pytorch_model.safetensors",
        "original/taesd_decoder.safetensors",
        "original/taesd_encoder.safetensors",
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/taesd").join(file);
        assert_eq!(inspect(&path).kind, "tiny vae", "{file}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    for (name, shape, kind, family) in [
        ("lora_unet_a_attn2_to_k.lora_down.weight", &[4, 768][..], "lora", "SD 1.x"),
        ("unet.a.attn2.to_k.lora_A.weight", &[4, 2048], "lora", "SDXL"),
        ("emb_params", &[3, 1024], "embedding", "SD 2.x"),
    ] {
        let bytes = vec![0; 4 * shape.iter().product::<usize>()];
        let tensors = BTreeMap::from([(name.to_owned(), Values { shape: shape.to_vec(), bytes })]);
        std::fs::write(&path, spelt::bytes(&tensors, &[])).unwrap();
        let found = inspect(&path);
        assert_eq!((found.kind, found.family), (kind, Some(family)), "{name}");
        assert_eq!(found.parameters(), shape.iter().product::<usize>() as u64);
        assert_eq!(found.bytes(), 4 * found.parameters());
    }
}
