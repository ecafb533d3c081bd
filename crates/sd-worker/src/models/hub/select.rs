//! Which files of a repository a pipeline needs.

use super::super::args::PullArgs;

/// Configurations and tokenizers; whatever of them a repository has is fetched.
const TEXTS: [&str; 17] = [
    "model_index.json",
    "sd-worker.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder_2/config.json",
    "unet/config.json",
    "vae/config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "tokenizer_2/vocab.json",
    "tokenizer_2/merges.txt",
    "tokenizer_2/tokenizer.json",
    "tokenizer_2/tokenizer_config.json",
    "tokenizer_2/special_tokens_map.json",
];
/// Folders with weights, and how their files begin.
const PARTS: [(&str, &str); 4] = [
    ("text_encoder", "model"),
    ("text_encoder_2", "model"),
    ("unet", "diffusion_pytorch_model"),
    ("vae", "diffusion_pytorch_model"),
];
/// A tokenizer at the top of a repository.
const TOKENIZER: [&str; 4] = ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"];

/// The files to fetch of those that the repository has.
///
/// # Errors
/// Says what is missing.
pub(crate) fn files(all: &[String], args: &PullArgs) -> Result<Vec<String>, String> {
    let has = |name: &str| all.iter().any(|file| file == name);
    if !args.files.is_empty() {
        return match args.files.iter().find(|file| !has(file)) {
            Some(missing) => Err(format!("there is no file {missing}")),
            None => Ok(args.files.clone()),
        };
    }
    if !has("model_index.json") {
        if has("vocab.json") && has("merges.txt") {
            return Ok(TOKENIZER.iter().filter(|name| has(name)).map(|name| (*name).to_owned()).collect());
        }
        let single: Vec<_> = all
            .iter()
            .filter(|f| f.ends_with(".safetensors") && !f.contains('/'))
            .map(String::as_str)
            .collect();
        return Err(match single.is_empty() {
            true => "it has no model_index.json: no model in the diffusers layout".into(),
            false => format!("it has no model_index.json; name a file to fetch: {}", single.join(", ")),
        });
    }
    let mut wanted: Vec<String> =
        TEXTS.iter().filter(|name| has(name)).map(|name| (*name).to_owned()).collect();
    for (folder, stem) in PARTS.iter().filter(|(folder, _)| has(&format!("{folder}/config.json"))) {
        let mut forms = [weights(all, folder, stem, true), weights(all, folder, stem, false)];
        if args.full {
            forms.reverse();
        }
        match forms.into_iter().find(|files| !files.is_empty()) {
            Some(files) => wanted.extend(files),
            None => return Err(format!("{folder} has no weights in safetensors")),
        }
    }
    Ok(wanted)
}

/// The weights of a part in one variant: one file, or an index and its shards. Empty when there are none.
fn weights(all: &[String], folder: &str, stem: &str, half: bool) -> Vec<String> {
    let has = |name: &String| all.contains(name);
    let variant = if half { ".fp16" } else { "" };
    let whole = format!("{folder}/{stem}{variant}.safetensors");
    if has(&whole) {
        return vec![whole];
    }
    // Two ways of writing the variant of an index are in use.
    let indices = [
        format!("{folder}/{stem}{variant}.safetensors.index.json"),
        format!("{folder}/{stem}.safetensors.index{variant}.json"),
    ];
    let Some(index) = indices.into_iter().find(has) else { return Vec::new() };
    let shard = |file: &&String| {
        file.strip_prefix(&format!("{folder}/{stem}")).is_some_and(|rest| {
            rest.ends_with(".safetensors") && rest.contains("-of-") && rest.contains("fp16") == half
        })
    };
    std::iter::once(index).chain(all.iter().filter(shard).cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(full: bool, files: &[&str]) -> PullArgs {
        PullArgs {
            model: "a/b".into(),
            files: files.iter().map(|file| (*file).to_owned()).collect(),
            revision: "main".into(),
            full,
            models_file: None,
        }
    }

    fn chosen(all: &[&str], full: bool) -> Result<Vec<String>, String> {
        let all: Vec<String> = all.iter().map(|file| (*file).to_owned()).collect();
        files(&all, &args(full, &[]))
    }

    const REPOSITORY: [&str; 16] = [
        ".gitattributes",
        "README.md",
        "model_index.json",
        "v1-5-pruned.ckpt",
        "v1-5-pruned.safetensors",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "tokenizer/vocab.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "text_encoder/pytorch_model.bin",
        "unet/config.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
    ];

    #[test]
    fn one_variant_of_each_part_and_nothing_else() {
        let texts =
            ["model_index.json", "text_encoder/config.json", "unet/config.json", "tokenizer/vocab.json"];
        for (full, unet) in [
            (false, "unet/diffusion_pytorch_model.fp16.safetensors"),
            (true, "unet/diffusion_pytorch_model.safetensors"),
        ] {
            let expected: Vec<&str> =
                texts.into_iter().chain(["text_encoder/model.safetensors", unet]).collect();
            assert_eq!(chosen(&REPOSITORY, full).unwrap(), expected);
        }
    }

    #[test]
    fn shards_come_with_their_index() {
        let sharded = [
            "model_index.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
            "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
            "unet/diffusion_pytorch_model.safetensors.index.json",
            "unet/diffusion_pytorch_model.fp16-00001-of-00001.safetensors",
            "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
        ];
        assert_eq!(chosen(&sharded, false).unwrap()[2..], [sharded[6], sharded[5]]);
        assert_eq!(chosen(&sharded, true).unwrap()[2..], [sharded[4], sharded[2], sharded[3]]);
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        assert!(chosen(&["README.md"], false).unwrap_err().contains("model_index.json"));
        assert!(chosen(&["a.safetensors"], false).unwrap_err().contains("a.safetensors"));
        let pickles = ["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.bin"];
        assert!(chosen(&pickles, false).unwrap_err().contains("unet"));
        let tokenizer = ["vocab.json", "merges.txt", "pytorch_model.bin"];
        assert_eq!(chosen(&tokenizer, false).unwrap(), ["vocab.json", "merges.txt"]);
        let all = ["a.safetensors".to_owned()];
        assert_eq!(files(&all, &args(false, &["a.safetensors"])).unwrap(), ["a.safetensors"]);
        assert!(files(&all, &args(false, &["b"])).unwrap_err().contains("b"));
    }
}
