//! Adapters in every naming against what diffusers computes with them (`fixtures/<family>/loras.*`, made by
//! `tools/reference/loras.py`), and what is refused.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, TensorView};
use sd_models::clip::{ClipTextConfig, ClipTextModel, ClipTokenizer};
use sd_models::lora::{Lora, Patches, Targets};
use sd_models::unet::{AddedCondition, Unet2DConditionModel, UnetConfig};
use sd_models::{Error, ModelFiles, Weights};
use serde_json::Value;

/// The largest difference relative to the largest expected value.
const TOLERANCE: f32 = 1e-4;
const FAMILIES: [&str; 3] = ["sd15", "sd21", "sdxl"];
const ENCODERS: [(&str, &str); 2] = [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")];

fn fixtures(family: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).join(family)
}

/// UNet and text encoders of a family, in one number format.
struct Model {
    family: &'static str,
    files: ModelFiles,
    dtype: DType,
    unet: Unet2DConditionModel,
    text: Vec<ClipTextModel>,
}

impl Model {
    fn load(family: &'static str, dtype: DType) -> Self {
        let files = ModelFiles::folder(fixtures(family).join("model")).unwrap();
        let weights = |folder, stem| Weights::open(&files, folder, stem, &Device::Cpu, dtype).unwrap();
        let config: UnetConfig = files.json("unet/config.json").unwrap();
        let unet = Unet2DConditionModel::load(&weights("unet", "diffusion_pytorch_model"), config, "unet");
        let text = ENCODERS.iter().filter(|(folder, _)| files.contains(&format!("{folder}/config.json")));
        let text = text.map(|(folder, _)| {
            let config: ClipTextConfig = files.json(&format!("{folder}/config.json")).unwrap();
            ClipTextModel::load(&weights(folder, "model"), config, folder).unwrap()
        });
        Self { family, text: text.collect(), unet: unet.unwrap(), dtype, files }
    }

    fn targets(&self) -> Targets {
        Targets::new(&self.unet, &self.text)
    }

    /// The same model with `patches` in place of what it has.
    fn with(&self, patches: Patches) -> Self {
        let weights =
            |folder, stem| Weights::open(&self.files, folder, stem, &Device::Cpu, self.dtype).unwrap();
        let layers = self.unet.layers().with(patches.unet);
        let unet = weights("unet", "diffusion_pytorch_model").with_layers(layers).unwrap();
        let unet = Unet2DConditionModel::load(&unet, self.unet.config().clone(), "unet").unwrap();
        let mut text = patches.text;
        text.resize_with(self.text.len(), Default::default);
        let text = self.text.iter().zip(text).zip(ENCODERS).map(|((model, patch), (folder, _))| {
            let weights = weights(folder, "model").with_layers(model.layers().with(patch)).unwrap();
            ClipTextModel::load(&weights, model.config().clone(), folder).unwrap()
        });
        Self { family: self.family, files: self.files.clone(), dtype: self.dtype, text: text.collect(), unet }
    }

    fn adapted(&self, stack: &[(Lora, f64)]) -> Self {
        self.with(self.targets().patches(stack.iter().map(|(lora, scale)| (lora, *scale))).unwrap())
    }

    /// The UNet's answer to the inputs of the fixtures.
    fn predict(&self) -> Tensor {
        let inputs = tensors(self.family, "expected.safetensors");
        let input = |part: &str| &inputs[&format!("unet/single/{part}")];
        let added = inputs.get("unet/single/text_embeds").map(|text_embeds| {
            let ids = input("time_ids").to_vec2::<f32>().unwrap();
            let time_ids = ids.iter().map(|row| row.iter().map(|id| f64::from(*id)).collect()).collect();
            AddedCondition { text_embeds: text_embeds.clone(), time_ids }
        });
        let timestep = f64::from(input("timestep").to_vec1::<f32>().unwrap()[0]);
        self.unet.forward(input("sample"), &[timestep], input("context"), added.as_ref()).unwrap()
    }

    /// What each encoder gives to the pipeline, and the pooled state of a second one.
    fn encode(&self) -> (Vec<Tensor>, Option<Tensor>) {
        let mut states = Vec::new();
        let mut pooled = None;
        for (number, (model, (_, tokenizer))) in self.text.iter().zip(ENCODERS).enumerate() {
            let tokenizer = ClipTokenizer::load(&self.files, tokenizer, 77).unwrap();
            let (ids, _) = tokenizer.encode("a photo of a red circle on green grass").unwrap();
            let output = model.forward(&[ids]).unwrap();
            states.push(match self.text.len() {
                1 => output.last_hidden_state,
                _ => output.hidden_states[output.hidden_states.len() - 2].clone(),
            });
            pooled = (number == 1).then_some(output.pooled);
        }
        (states, pooled)
    }
}

fn tensors(family: &str, file: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixtures(family).join(file), &Device::Cpu).unwrap()
}

fn notes(family: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixtures(family).join("loras.json")).unwrap()).unwrap()
}

fn lora(family: &str, name: &str) -> Lora {
    Lora::open(fixtures(family).join(format!("loras/{name}.safetensors"))).unwrap()
}

fn stack(family: &str, case: &Value) -> Vec<(Lora, f64)> {
    let entries = case["stack"].as_array().unwrap();
    entries
        .iter()
        .map(|entry| (lora(family, entry["file"].as_str().unwrap()), entry["scale"].as_f64().unwrap()))
        .collect()
}

fn relative(found: &Tensor, expected: &Tensor) -> f32 {
    let largest = |t: &Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    let found = found.reshape(expected.shape()).unwrap();
    largest(&(&found - expected).unwrap()) / largest(expected)
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The values of everything that the model computes.
fn everything(model: &Model) -> Vec<Vec<f32>> {
    let (states, pooled) = model.encode();
    states.iter().chain(&pooled).chain([&model.predict()]).map(values).collect()
}

#[test]
fn every_naming_and_stack_gives_what_the_reference_gives() {
    let mut worst: f32 = 0.0;
    for family in FAMILIES {
        let model = Model::load(family, DType::F32);
        let expected = tensors(family, "loras.safetensors");
        for case in notes(family)["cases"].as_array().unwrap() {
            let name = case["name"].as_str().unwrap();
            let adapted = model.adapted(&stack(family, case));
            let mut compared = 0;
            let mut compare = |key: String, found: &Tensor| {
                let Some(expected) = expected.get(&key) else { return };
                let difference = relative(found, expected);
                assert!(difference <= TOLERANCE, "{family} {key}: relative difference {difference:e}");
                worst = worst.max(difference);
                compared += 1;
            };
            compare(format!("unet/{name}"), &adapted.predict());
            let (states, pooled) = adapted.encode();
            for (number, state) in states.iter().enumerate() {
                compare(format!("text/{name}/{}", number + 1), state);
            }
            if let Some(pooled) = pooled {
                compare(format!("pooled/{name}"), &pooled);
            }
            assert!(compared == 1 || compared > model.text.len(), "{family} {name}: {compared} compared");
        }
    }
    println!("largest relative difference: {worst:e}");
}

#[test]
fn the_files_change_as_many_layers_as_the_reference_counts() {
    for family in FAMILIES {
        let targets = Model::load(family, DType::F32).targets();
        for file in notes(family)["files"].as_array().unwrap() {
            let lora = lora(family, file["name"].as_str().unwrap());
            assert_eq!(lora.layers() as u64, file["layers"].as_u64().unwrap(), "{family} {}", lora.name());
            targets.fit(&lora).unwrap();
        }
    }
}

/// In both number formats: what was added leaves no trace.
#[test]
fn adapters_are_undone_to_the_last_bit() {
    for dtype in [DType::F32, DType::BF16] {
        for family in FAMILIES {
            let model = Model::load(family, dtype);
            let before = everything(&model);
            let case = &notes(family)["cases"][0];
            let adapted = model.adapted(&stack(family, case));
            assert_ne!(everything(&adapted), before, "{family}: nothing was added");
            assert_eq!(everything(&adapted.with(Patches::default())), before, "{family} {dtype:?}");
            assert_eq!(everything(&model), before, "{family}: the model itself changed");
        }
    }
}

/// bf16 weights take the sum rounded once: as near to f32 as bf16 weights are without adapters.
#[test]
fn adapters_on_bf16_weights_are_near_those_on_f32() {
    let (exact, rounded) = (Model::load("sd15", DType::F32), Model::load("sd15", DType::BF16));
    let stack = stack("sd15", &notes("sd15")["cases"][0]);
    let without = relative(&rounded.predict(), &exact.predict());
    let with = relative(&rounded.adapted(&stack).predict(), &exact.adapted(&stack).predict());
    let effect = relative(&exact.adapted(&stack).predict(), &exact.predict());
    assert!(with < 3.0 * without && with < effect / 10.0, "with {with}, without {without}, effect {effect}");
}

#[test]
fn the_order_of_a_stack_makes_no_difference_beyond_rounding() {
    let model = Model::load("sd15", DType::F32);
    let mut stack = stack("sd15", notes("sd15")["cases"].as_array().unwrap().last().unwrap());
    assert!(stack.len() > 2);
    let forward = model.adapted(&stack).predict();
    stack.reverse();
    let difference = relative(&model.adapted(&stack).predict(), &forward);
    assert!(difference < 1e-5, "{difference:e}");
}

#[test]
fn layers_without_an_adapter_are_shared() {
    let model = Model::load("sd15", DType::F32);
    let patches = model.targets().patches([(&lora("sd15", "diffusers_old"), 1.0)]).unwrap();
    let layers = model.unet.layers().adaptable();
    let attention =
        |name: &str| [".to_q", ".to_k", ".to_v", ".to_out.0"].iter().any(|end| name.ends_with(end));
    let expected =
        layers.iter().filter(|(name, _)| attention(name)).map(|(_, shape)| shape.iter().product::<usize>());
    assert_eq!(model.unet.layers().changed_values(&patches.unet), expected.sum::<usize>() as u64);
    let adapted = model.with(patches);
    assert_eq!(adapted.unet.layers().adaptable(), layers, "the adapted model has the same layers");
}

/// Devices other than the CPU load tensors: they get the same sum, of every adapter at its scale.
#[test]
fn tensors_for_other_devices_are_the_weight_and_its_products() {
    let model = Model::load("sd15", DType::F32);
    let stack = [(lora("sd15", "kohya"), 0.8), (lora("sd15", "peft"), -0.6)];
    let patches = model.targets().patches(stack.iter().map(|(lora, scale)| (lora, *scale))).unwrap();
    let open =
        || Weights::open(&model.files, "unet", "diffusion_pytorch_model", &Device::Cpu, DType::F32).unwrap();
    let adapted = open().with_layers(model.unet.layers().with(patches.unet)).unwrap();

    let layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
    let shape = &model.unet.layers().adaptable()[layer];
    let kohya = format!("lora_unet_{}", layer.replace('.', "_"));
    let product = |file: &str, down: String, up: String, factor: f64| {
        let tensors = tensors("sd15", file);
        let read = |name: &str| tensors[name].to_dtype(DType::F32).unwrap();
        (read(&up).matmul(&read(&down)).unwrap() * factor).unwrap()
    };
    let [down, up] = ["down", "up"].map(|role| format!("{kohya}.lora_{role}.weight"));
    let mut expected = open().child(layer).tensor("weight", shape).unwrap();
    // Rank 2 with an alpha of 1, and rank 4 with an alpha of 6.
    expected = (expected + product("loras/kohya.safetensors", down, up, 0.8 * 1.0 / 2.0)).unwrap();
    let [down, up] = ["A", "B"].map(|role| format!("unet.{layer}.lora_{role}.weight"));
    expected = (expected + product("loras/peft.safetensors", down, up, -0.6 * 6.0 / 4.0)).unwrap();
    let found = adapted.child(layer).tensor("weight", shape).unwrap();
    assert!(relative(&found, &expected) < 1e-6);
    assert!(relative(&open().child(layer).tensor("weight", shape).unwrap(), &expected) > 0.1);
}

fn save(folder: &Path, file: &str, tensors: &[(&str, &[usize])]) -> PathBuf {
    let most = tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).max().unwrap_or(0);
    let zeros = vec![0u8; 4 * most];
    let views = tensors.iter().map(|(name, shape)| {
        let bytes = &zeros[..4 * shape.iter().product::<usize>()];
        (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap())
    });
    let path = folder.join(file);
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    path
}

#[test]
fn files_that_are_no_lora_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let layer = "lora_unet_mid_block_attentions_0_proj_in";
    let key = |end: &str| format!("{layer}.{end}");
    let (down, up, mid) = (key("lora_down.weight"), key("lora_up.weight"), key("lora_mid.weight"));
    let whole: [(&str, &[usize]); 2] = [(&down, &[4, 48]), (&up, &[48, 4])];
    Lora::open(save(folder.path(), "good.safetensors", &whole)).unwrap();
    for (wanted, tensors) in [
        ("LoHa", vec![(key("hada_w1_a"), vec![4, 4])]),
        ("LoKr", vec![(key("lokr_w1"), vec![4, 4])]),
        ("DoRA", vec![(down.clone(), vec![4, 48]), (up.clone(), vec![48, 4]), (key("dora_scale"), vec![48])]),
        ("full difference", vec![(key("diff"), vec![48, 48])]),
        ("biases", vec![("unet.conv_in.lora_B.bias".into(), vec![4])]),
        ("not whole", vec![(down.clone(), vec![4, 48])]),
        ("not whole", vec![(key("alpha"), vec![])]),
        (
            "belong to no LoRA",
            vec![(down.clone(), vec![4, 48]), (up.clone(), vec![48, 4]), ("extra".into(), vec![1])],
        ),
        ("[48, 4]", vec![(down.clone(), vec![4, 48]), (up.clone(), vec![48, 3])]),
        ("no matrix", vec![(down.clone(), vec![4]), (up.clone(), vec![48, 4])]),
        ("no matrix", vec![(down.clone(), vec![0, 48]), (up.clone(), vec![48, 0])]),
        (
            "lora_mid",
            vec![(down.clone(), vec![4, 48, 3, 3]), (up.clone(), vec![48, 4]), (mid, vec![4, 4, 3, 3])],
        ),
        ("alpha", vec![(down.clone(), vec![4, 48]), (up.clone(), vec![48, 4]), (key("alpha"), vec![2])]),
        (
            "two names",
            vec![(down.clone(), vec![4, 48]), (key("lora_A.weight"), vec![4, 48]), (up.clone(), vec![48, 4])],
        ),
        ("no tensors", vec![]),
    ] {
        let tensors: Vec<(&str, &[usize])> =
            tensors.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
        let error = Lora::open(save(folder.path(), "bad.safetensors", &tensors)).unwrap_err().to_string();
        assert!(error.contains(wanted) && error.contains("bad.safetensors"), "{wanted}: {error}");
    }
    for (name, wanted) in [("x.ckpt", "pickle"), ("x.pt", "pickle"), ("none.safetensors", "none.safetensors")]
    {
        let error = Lora::open(folder.path().join(name)).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    assert!(Lora::open(folder.path()).unwrap_err().to_string().contains("folder"));
    let good = std::fs::read(folder.path().join("good.safetensors")).unwrap();
    for length in 0..good.len() {
        std::fs::write(folder.path().join("cut.safetensors"), &good[..length]).unwrap();
        let error = Lora::open(folder.path().join("cut.safetensors")).unwrap_err().to_string();
        assert!(error.contains("cut.safetensors"), "{length}: {error}");
    }
}

#[test]
fn an_adapter_of_another_model_is_refused_with_what_it_was_made_for() {
    let folder = tempfile::tempdir().unwrap();
    let targets = Model::load("sd15", DType::F32).targets();
    let cross = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k";
    let (down, up) = (format!("{cross}.lora_A.weight"), format!("{cross}.lora_B.weight"));
    for (width, made_for) in [(768, "Stable Diffusion 1"), (1024, "Stable Diffusion 2"), (2048, "SDXL")] {
        let path = save(folder.path(), "wide.safetensors", &[(&down, &[4, width]), (&up, &[48, 4])]);
        let error = targets.fit(&Lora::open(path).unwrap()).unwrap_err();
        assert!(matches!(error, Error::AdapterMismatch { .. }));
        let error = error.to_string();
        for part in ["wide.safetensors", &down, &format!("[4, {width}]"), "[4, 32]", made_for] {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    }
    let path = save(folder.path(), "up.safetensors", &[(&down, &[4, 32]), (&up, &[40, 4])]);
    let error = targets.fit(&Lora::open(path).unwrap()).unwrap_err().to_string();
    assert!(error.contains(&up) && error.contains("[48, 4]") && error.contains("[40, 4]"), "{error}");

    let other = "transformer.single_transformer_blocks.0.attn.to_q";
    let names = [format!("{other}.lora_A.weight"), format!("{other}.lora_B.weight")];
    let path = save(folder.path(), "flux.safetensors", &[(&names[0], &[4, 8]), (&names[1], &[8, 4])]);
    let error = targets.fit(&Lora::open(path).unwrap()).unwrap_err().to_string();
    assert!(
        error.contains("1 of its 1 layers") && error.contains(other) && error.contains("FLUX"),
        "{error}"
    );

    let error = targets.fit(&lora("sdxl", "diffusers")).unwrap_err().to_string();
    assert!(error.contains("text_encoder_2.") && error.contains("SDXL"), "{error}");
}

/// What was loaded and what is loaded again must be one model.
#[test]
fn files_that_changed_meanwhile_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let from = fixtures("sd15").join("model");
    std::fs::create_dir(folder.path().join("unet")).unwrap();
    for file in ["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"] {
        std::fs::write(folder.path().join(file), std::fs::read(from.join(file)).unwrap()).unwrap();
    }
    let files = ModelFiles::folder(folder.path()).unwrap();
    let open = || Weights::open(&files, "unet", "diffusion_pytorch_model", &Device::Cpu, DType::F32).unwrap();
    let unet = Unet2DConditionModel::load(&open(), files.json("unet/config.json").unwrap(), "unet").unwrap();
    open().with_layers(unet.layers().with(Default::default())).unwrap();

    let weights = folder.path().join("unet/diffusion_pytorch_model.safetensors");
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    std::fs::File::options().append(true).open(&weights).unwrap().set_modified(later).unwrap();
    let error = open().with_layers(unet.layers().with(Default::default())).err().unwrap().to_string();
    assert!(
        error.contains("changed since") && error.contains("diffusion_pytorch_model.safetensors"),
        "{error}"
    );
}
