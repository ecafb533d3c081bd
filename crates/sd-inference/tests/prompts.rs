//! Prompts with weights, breaks, any length, textual inversions and one text for each encoder, against what the reference
//! computes (`fixtures/<family>/prompts.json`, made by `tools/reference/prompts.py`), and the laws of prompts.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{Device, Tensor};
use sd_inference::{Error, GenerationRequest, LoadOptions, ModelSource, Pipeline, PromptReader};
use serde_json::Value;

use support::{FAMILIES, TOLERANCE, fixtures, images, largest_difference, pipeline};

/// The largest difference between states, as a part of the largest value.
const STATES: f32 = 1e-4;

fn with_embeddings(family: &str, files: Vec<PathBuf>, folder: Option<PathBuf>) -> Result<Pipeline, Error> {
    let source = ModelSource::folder(fixtures(family).join("model")).unwrap();
    let options = LoadOptions { embeddings: files, embeddings_dir: folder, ..LoadOptions::default() };
    Pipeline::load(&source, &options)
}

struct Reference {
    plain: Pipeline,
    styled: Pipeline,
    file: Value,
    tensors: HashMap<String, Tensor>,
}

impl Reference {
    fn of(family: &str) -> Self {
        let text = std::fs::read_to_string(fixtures(family).join("prompts.json")).unwrap();
        let file: Value = serde_json::from_str(&text).unwrap();
        let style = fixtures(family).join(file["embedding"].as_str().unwrap());
        let tensors = fixtures(family).join("prompts.safetensors");
        Self {
            plain: pipeline(family, "model"),
            styled: with_embeddings(family, vec![style], None).unwrap(),
            tensors: candle_core::safetensors::load(tensors, &Device::Cpu).unwrap(),
            file,
        }
    }

    fn cases(&self) -> &[Value] {
        self.file["cases"].as_array().unwrap()
    }

    fn pipeline(&self, case: &Value) -> &Pipeline {
        if case["embedding"].as_bool().unwrap() { &self.styled } else { &self.plain }
    }
}

fn request(case: &Value) -> GenerationRequest {
    let text = |field: &str| case[field].as_str().map(str::to_owned);
    GenerationRequest {
        negative_prompt: text("negative_prompt"),
        prompt_2: text("prompt_2"),
        negative_prompt_2: text("negative_prompt_2"),
        clip_skip: case["clip_skip"].as_u64().unwrap() as usize,
        prompt_weighting: case["weighting"].as_bool().unwrap(),
        ..GenerationRequest::new(text("prompt").unwrap())
    }
}

/// The largest difference as a part of the largest expected value.
fn difference(found: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    let largest = |tensor: &Tensor| {
        tensor.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap()
    };
    let difference = largest(&(found - expected).unwrap());
    // What is all zeros must be so exactly.
    if difference == 0.0 { 0.0 } else { difference / largest(expected) }
}

fn check_states(family: &str) {
    let reference = Reference::of(family);
    assert!(reference.cases().len() >= 12, "{family}: too few cases to mean anything");
    for case in reference.cases() {
        let name = case["name"].as_str().unwrap();
        let found = reference.pipeline(case).encode_prompt(&request(case)).unwrap();
        assert_eq!(found.states.dim(1).unwrap() as u64, case["tokens"].as_u64().unwrap(), "{family} {name}");
        let rows = |field: &str| {
            let rows = case[field].as_array().unwrap().iter().map(|row| row.as_u64().unwrap() as u32);
            Tensor::new(rows.collect::<Vec<_>>(), &Device::Cpu).unwrap()
        };
        let mut worst = 0f32;
        let mut compare = |label: &str, found: &Tensor| {
            let expected = &reference.tensors[&format!("{name}/{label}")];
            let difference = difference(found, expected);
            assert!(difference <= STATES, "{family} {name}/{label}: differs by {difference}");
            worst = worst.max(difference);
        };
        for (label, mean, kept, states) in [
            ("states", "mean", "rows", &found.states),
            ("negative", "negative_mean", "negative_rows", &found.negative_states),
        ] {
            let states = states.squeeze(0).unwrap();
            compare(label, &states.index_select(&rows(kept), 0).unwrap());
            compare(mean, &states.mean(0).unwrap());
        }
        assert_eq!(found.pooled.is_some(), family == "sdxl");
        for (label, pooled) in [("pooled", &found.pooled), ("negative_pooled", &found.negative_pooled)] {
            if let Some(pooled) = pooled {
                compare(label, &pooled.squeeze(0).unwrap());
            }
        }
        println!("{family} {name}: {worst:.1e} of the largest value");
    }
}

fn check_pictures(family: &str) {
    let reference = Reference::of(family);
    let runs = reference.file["runs"].as_array().unwrap();
    assert!(runs.len() >= 4, "{family}: too few runs to mean anything");
    for run in runs {
        let case = reference.cases().iter().find(|case| case["name"] == run["case"]).unwrap();
        let size = |field: &str| run[field].as_u64().map(|value| value as usize);
        let request = GenerationRequest {
            width: size("width"),
            height: size("height"),
            steps: size("steps"),
            guidance_scale: run["guidance_scale"].as_f64(),
            seed: run["seed"].as_str().unwrap().parse().unwrap(),
            sampler: Some("euler".parse().unwrap()),
            ..request(case)
        };
        let file = run["file"].as_str().unwrap();
        let expected = image::open(fixtures(family).join(file)).unwrap().to_rgb8();
        let difference = largest_difference(&expected, &images(reference.pipeline(case), &request).remove(0));
        println!("{family} {file}: largest difference {difference} of 255");
        assert!(difference <= TOLERANCE, "{family} {file}: differs by {difference} of 255");
    }
}

#[test]
fn states_are_those_of_the_reference_sd15() {
    check_states("sd15");
}

#[test]
fn states_are_those_of_the_reference_sd21() {
    check_states("sd21");
}

#[test]
fn states_are_those_of_the_reference_sdxl() {
    check_states("sdxl");
}

#[test]
fn pictures_are_those_of_the_reference() {
    for family in FAMILIES {
        check_pictures(family);
    }
}

fn bytes(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// Without syntax, weighting is no more than the plain encoder; and what was remembered is what was computed.
#[test]
fn plain_prompts_and_remembered_ones_are_the_same_to_the_bit() {
    for family in FAMILIES {
        let pipeline = pipeline(family, "model");
        let on = GenerationRequest {
            negative_prompt: Some("blurry".into()),
            ..GenerationRequest::new("a red circle, on: green grass | \"x\" <y>")
        };
        let off = GenerationRequest { prompt_weighting: false, ..on.clone() };
        let weighted = GenerationRequest { prompt: "a (red:1.3) circle BREAK b".into(), ..on.clone() };
        let states = |request: &GenerationRequest| {
            let found = pipeline.encode_prompt(request).unwrap();
            let pooled = [found.pooled, found.negative_pooled].into_iter().flatten();
            let mut all = [bytes(&found.states), bytes(&found.negative_states)].concat();
            pooled.for_each(|pooled| all.extend(bytes(&pooled)));
            all
        };
        let first = [states(&on), states(&off), states(&weighted)];
        assert_eq!(first[0], first[1], "{family}");
        assert_ne!(first[0].len(), first[2].len(), "{family}");
        for _ in 0..2 {
            assert_eq!([states(&on), states(&off), states(&weighted)], first, "{family}");
            pipeline.clear_prompt_cache();
        }
        // Settings are part of what is remembered.
        let skipped = GenerationRequest { clip_skip: 1, ..weighted.clone() };
        assert_ne!(states(&skipped), first[2], "{family}");
        let literal = GenerationRequest { prompt_weighting: false, ..weighted };
        assert_ne!(states(&literal), first[2], "{family}");
    }
}

#[test]
fn weights_change_the_picture_and_keep_the_mean() {
    let pipeline = pipeline("sd15", "model");
    let encode = |prompt: &str| pipeline.encode_prompt(&GenerationRequest::new(prompt)).unwrap().states;
    let mean = |states: &Tensor| states.mean_all().unwrap().to_scalar::<f32>().unwrap();
    let (plain, weighted) = (encode("a red circle"), encode("a (red:1.5) circle"));
    assert_ne!(bytes(&plain), bytes(&weighted));
    assert!((mean(&plain) - mean(&weighted)).abs() < 1e-5, "{} {}", mean(&plain), mean(&weighted));
    assert_eq!(bytes(&plain), bytes(&encode("a (red:1.0) circle")));
}

/// Image k is, to the byte, the image of its own seed, also where wildcards give prompts of different lengths.
#[test]
fn wildcards_are_chosen_by_the_seed_of_each_image() {
    let long = format!("a star {}", "on a wall, ".repeat(40));
    for family in FAMILIES {
        let pipeline = pipeline(family, "model");
        let request = GenerationRequest {
            steps: Some(2),
            seed: u64::MAX,
            num_images: 4,
            // With guidance and without.
            guidance_scale: (family == "sd21").then_some(1.0),
            ..GenerationRequest::new(format!("{{a red circle|{long}|a blue square}}"))
        };
        let generation = pipeline.begin(&request).unwrap();
        let chosen: Vec<_> = generation.notes().iter().filter(|note| note.contains("chose")).collect();
        assert_eq!(chosen.len(), 4, "{chosen:?}");
        assert!(chosen.iter().any(|note| note.contains("on a wall")), "no long one: {chosen:?}");
        assert!(chosen.iter().any(|note| !note.contains("on a wall")), "no short one: {chosen:?}");
        for (k, image) in images(&pipeline, &request).iter().enumerate() {
            let seed = request.seed.wrapping_add(k as u64);
            let alone = GenerationRequest { seed, num_images: 1, ..request.clone() };
            assert_eq!(&images(&pipeline, &alone)[0], image, "{family}: image {k}");
            // And the prompt that is told makes it again.
            let prompt = sd_inference::prompt::resolve_wildcards(&request.prompt, seed);
            assert!(chosen[k].ends_with(&prompt), "{}", chosen[k]);
            let again = GenerationRequest { prompt, ..alone };
            assert_eq!(&images(&pipeline, &again)[0], image, "{family}: image {k} from its own prompt");
        }
    }
}

/// What reads the prompts of a model that is not loaded finds what the loaded one would refuse, and both count the same.
#[test]
fn prompts_are_read_before_a_model_is_loaded_as_by_the_model() {
    for family in ["sd15", "sdxl"] {
        let pipeline = pipeline(family, "model");
        let source = ModelSource::folder(fixtures(family).join("model")).unwrap();
        let opened = PromptReader::open(&source, &LoadOptions::default()).unwrap();
        let loaded = pipeline.prompt_reader().unwrap();
        let mut refused = 0;
        for words in [1, 75 * 32, 75 * 32 + 1, 5000] {
            let base = GenerationRequest { seed: 3, ..GenerationRequest::new("a circle") };
            let long = "a ".repeat(words);
            for request in [
                GenerationRequest { prompt: long.clone(), ..base.clone() },
                GenerationRequest { negative_prompt: Some(long.clone()), ..base.clone() },
                GenerationRequest { prompt: long.clone(), prompt_weighting: false, ..base.clone() },
                GenerationRequest { prompt: format!("{{a|{long}}}"), num_images: 8, ..base },
            ] {
                let expected: Vec<String> =
                    pipeline.begin(&request).err().iter().map(ToString::to_string).collect();
                for reader in [&opened, &loaded] {
                    let faults: Vec<String> =
                        reader.faults(&request).iter().map(ToString::to_string).collect();
                    assert_eq!(faults, expected, "{family}, {words} words");
                }
                refused += expected.len();
            }
        }
        assert_eq!(refused, 6, "{family}");
    }
}

/// For each image those that its own texts name, of all fields that the model reads, each once.
#[test]
fn textual_inversions_that_prompts_name_are_told_for_each_image() {
    for family in ["sd15", "sdxl"] {
        let file = fixtures(family).join("embeddings/brushwork.safetensors");
        let styled = with_embeddings(family, vec![file], None).unwrap();
        let reader = styled.prompt_reader().unwrap();
        let base = GenerationRequest::new("a circle");
        let (some, none) = (Some("Brushwork".to_owned()), vec![Vec::<&str>::new()]);
        let told = vec![vec!["brushwork"]];
        for (request, expected) in [
            (base.clone(), &none),
            (GenerationRequest::new("a brushworks circle"), &none),
            (GenerationRequest::new("(brushwork:1.2) circle, BRUSHWORK"), &told),
            (GenerationRequest { negative_prompt: some.clone(), ..base.clone() }, &told),
            (GenerationRequest { prompt_2: some, ..base }, if family == "sdxl" { &told } else { &none }),
            // Refused when it begins.
            (GenerationRequest::new("(brushwork:1000)"), &none),
        ] {
            assert_eq!(&reader.embeddings(&request), expected, "{family}: {request:?}");
        }
        let batch = GenerationRequest { num_images: 8, ..GenerationRequest::new("{brushwork|a circle}") };
        let named: Vec<usize> = reader.embeddings(&batch).iter().map(Vec::len).collect();
        let chosen = (0..8).map(|seed| sd_inference::prompt::resolve_wildcards(&batch.prompt, seed));
        let expected: Vec<usize> = chosen.map(|prompt| usize::from(prompt == "brushwork")).collect();
        assert_eq!(named, expected, "{family}");
        assert!(named.contains(&0) && named.contains(&1), "{named:?}");
    }
}

fn refusal(pipeline: &Pipeline, request: &GenerationRequest) -> String {
    let Err(error) = pipeline.begin(request) else { panic!("accepted: {request:?}") };
    assert!(matches!(error, Error::InvalidRequest { .. }), "{error}");
    error.to_string()
}

#[test]
fn prompts_that_cannot_be_encoded_are_refused_by_field_with_figures() {
    let pipeline = pipeline("sd15", "model");
    let base = GenerationRequest::new("a circle");
    let many = "a ".repeat(75 * 32);
    assert!(pipeline.encode_prompt(&GenerationRequest::new(many.trim_end())).is_ok());
    for (request, parts) in [
        (
            GenerationRequest { prompt: format!("{many} a"), ..base.clone() },
            ["prompt is 2401 tokens in 33 chunks", "at most 32 chunks of 75"],
        ),
        (
            GenerationRequest { negative_prompt: Some("BREAK ".repeat(33) + "a"), ..base.clone() },
            ["negative_prompt is 1 tokens in 34 chunks", "at most 32 chunks of 75"],
        ),
        (
            GenerationRequest { prompt: "a (cat:1000)".into(), ..base.clone() },
            ["prompt is weighted 1000 at `cat`", "between -100 and 100"],
        ),
        (
            GenerationRequest { prompt_2: Some("a cat".into()), ..base.clone() },
            ["prompt_2 is `a cat`", "one text encoder"],
        ),
        (
            GenerationRequest { negative_prompt_2: Some("a cat".into()), ..base },
            ["negative_prompt_2 is `a cat`", "one text encoder"],
        ),
    ] {
        let message = refusal(&pipeline, &request);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}

#[test]
fn prompts_are_only_cut_where_they_are_taken_as_they_are() {
    let pipeline = pipeline("sd15", "model");
    let request = GenerationRequest { steps: Some(1), ..GenerationRequest::new("a ".repeat(80)) };
    assert_eq!(pipeline.begin(&request).unwrap().notes(), &[] as &[String]);
    let literal = GenerationRequest { prompt_weighting: false, ..request };
    let notes = pipeline.begin(&literal).unwrap().notes().to_vec();
    assert!(notes.len() == 1 && notes[0].contains("its last 5 tokens were ignored"), "{notes:?}");
}

#[test]
fn embeddings_of_another_model_are_refused_by_file_or_left_out_of_a_folder() {
    let style = |family: &str| fixtures(family).join("embeddings");
    let Err(error) = with_embeddings("sd15", vec![style("sdxl").join("brushwork.safetensors")], None) else {
        panic!("it was accepted")
    };
    assert!(matches!(error, Error::Model(_)) && error.to_string().contains("two text encoders"), "{error}");
    let file = style("sd15").join("brushwork.safetensors");
    let Err(error) = with_embeddings("sd15", vec![file.clone(), file.clone()], None) else {
        panic!("it was accepted")
    };
    assert!(error.to_string().contains("called `brushwork`"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(&file, folder.path().join("good.safetensors")).unwrap();
    std::fs::copy(style("sdxl").join("brushwork.safetensors"), folder.path().join("large.safetensors"))
        .unwrap();
    std::fs::write(folder.path().join("old.pt"), b"\x80\x02}q\x00.").unwrap();
    std::fs::write(folder.path().join("notes.txt"), "no embedding").unwrap();
    let pipeline = with_embeddings("sd15", vec![file], Some(folder.path().into())).unwrap();
    assert_eq!(pipeline.info().embeddings, ["brushwork", "good"]);
    let notes = &pipeline.info().notes;
    for part in ["large.safetensors", "old.pt: it is a pickle"] {
        let about = notes.iter().filter(|note| note.contains("embedding left out") && note.contains(part));
        assert_eq!(about.count(), 1, "{part}: {notes:?}");
    }
    assert!(!notes.iter().any(|note| note.contains("notes.txt")), "{notes:?}");
    // Both names mean the same vectors.
    let encode = |prompt: &str| pipeline.encode_prompt(&GenerationRequest::new(prompt)).unwrap().states;
    assert_eq!(bytes(&encode("a brushwork cat")), bytes(&encode("a GOOD cat")));
    assert_ne!(bytes(&encode("a brushwork cat")), bytes(&encode("a brush cat")));
}
