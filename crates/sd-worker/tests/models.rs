//! `sd-worker models` as a user meets it, against a hub of our own that cuts connections and tells lies.

#![allow(clippy::unwrap_used)]

#[path = "support/hub.rs"]
#[allow(unreachable_pub, reason = "a module of this test")]
mod hub;
#[path = "../../sd-models/tests/support/spelt.rs"]
mod spelt;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use hub::{COMMIT, Faults, Server, etag};
use serde_json::Value;

/// The variables that would lead the program to the tester's own files.
const OTHERS: [&str; 10] = [
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "http_proxy",
    "HTTP_PROXY",
    "all_proxy",
    "ALL_PROXY",
];

/// A home of its own, with a hub cache in it.
struct Home {
    folder: tempfile::TempDir,
    endpoint: String,
}

impl Home {
    fn new(endpoint: &str) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), endpoint: endpoint.to_owned() }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    fn repository(&self) -> PathBuf {
        self.path("home/hub/models--tiny--model")
    }

    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sd-worker"));
        for name in OTHERS {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("HF_HOME", self.path("home"))
            .env("HF_ENDPOINT", &self.endpoint)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments, &[]);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.succeed(arguments)).unwrap()
    }

    /// The message of a command that ends with `code`.
    fn refused(&self, arguments: &[&str], variables: &[(&str, &str)], code: i32) -> String {
        let output = self.run(arguments, variables);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
        message
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The files under `folder` by their relative paths.
fn files_in(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => waiting.push(path),
                false => {
                    let name = path.strip_prefix(folder).unwrap().to_string_lossy().replace('\\', "/");
                    all.insert(name, std::fs::read(&path).unwrap());
                }
            }
        }
    }
    all
}

/// The tiny SD 1.5 as a repository, with files that nobody needs.
fn repository() -> (BTreeMap<String, Vec<u8>>, Vec<&'static str>) {
    let mut files = files_in(&spelt::model("sd15"));
    let unneeded = ["README.md", "unet/diffusion_pytorch_model.bin", "safety_checker/model.safetensors"];
    for name in unneeded {
        files.insert(name.into(), b"not needed".to_vec());
    }
    (files, unneeded.to_vec())
}

fn weights() -> &'static str {
    "unet/diffusion_pytorch_model.safetensors"
}

#[test]
fn a_model_is_pulled_listed_used_and_removed() {
    let (files, unneeded) = repository();
    let server = Server::start(files.clone());
    let home = Home::new(&server.url);
    let message = home.refused(&["generate", "x", "--model", "tiny/model"], &[], 2);
    assert!(message.contains("models pull tiny/model"), "{message}");

    let printed = home.succeed(&["models", "pull", "tiny/model"]);
    let snapshot = home.repository().join("snapshots").join(COMMIT);
    assert!(printed.contains(&snapshot.display().to_string()), "{printed}");
    let expected: BTreeMap<_, _> =
        files.iter().filter(|(name, _)| !unneeded.contains(&name.as_str())).collect();
    let found = files_in(&snapshot);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().copied().collect::<Vec<_>>());
    for (name, content) in expected {
        assert!(found[name] == *content, "{name} differs");
        // As the Python tools lay it out: contents by checksum, relative links to them.
        let blob = home.repository().join("blobs").join(etag(name, content));
        assert_eq!(snapshot.join(name).canonicalize().unwrap(), blob.canonicalize().unwrap());
        #[cfg(unix)]
        assert!(std::fs::read_link(snapshot.join(name)).unwrap().is_relative(), "{name}");
    }
    assert_eq!(std::fs::read_to_string(home.repository().join("refs/main")).unwrap(), COMMIT);

    server.requests();
    let printed = home.succeed(&["models", "pull", "tiny/model"]);
    assert!(printed.contains("(0 B fetched)"), "{printed}");
    assert!(server.requests().iter().all(|request| !request.starts_with("GET /cdn/")));

    let listed = home.json(&["models", "list", "--json"]);
    let rows = listed["models"].as_array().unwrap();
    let row = rows.iter().find(|row| row["model"] == "tiny/model").unwrap();
    assert_eq!((&row["present"], &row["name"]), (&Value::Bool(true), &Value::Null));
    let bytes: usize = found.values().map(Vec::len).sum();
    assert!(row["bytes"].as_u64().unwrap() as usize >= bytes);
    assert!(rows.iter().any(|row| row["name"] == "sdxl" && row["present"] == false));
    assert!(home.succeed(&["models", "list"]).contains("tiny/model"));

    let picture = ["generate", "x", "--model", "tiny/model", "--steps", "1", "-o", "x.png"];
    let output = home.run(&picture, &[("HF_HUB_OFFLINE", "1")]);
    assert!(output.status.success(), "{}", text(&output.stderr));

    let message = home.refused(&["models", "remove", "tiny/model"], &[], 2);
    assert!(message.contains("--yes") && home.repository().exists(), "{message}");
    home.succeed(&["models", "remove", "tiny/model", "--yes"]);
    assert!(!home.repository().exists());
    home.refused(&["models", "remove", "tiny/model", "--yes"], &[], 2);
}

/// Neither the hub is asked nor anything deleted.
#[test]
fn what_is_no_repository_is_neither_pulled_nor_removed() {
    let server = Server::start(BTreeMap::new());
    let home = Home::new(&server.url);
    let folder = home.path("a-folder");
    std::fs::create_dir(&folder).unwrap();
    let file = home.path("a.safetensors");
    std::fs::write(&file, "x").unwrap();
    for (name, reason) in [
        ("demo", "the model is built into sd-worker: there is nothing to fetch or to remove"),
        ("./a-folder", "it is a folder, not a hub repository `owner/name`"),
        (folder.to_str().unwrap(), "it is a folder, not a hub repository `owner/name`"),
        ("a.safetensors", "it is a file, not a hub repository `owner/name`"),
        ("nosuch", "neither a hub repository `owner/name` nor one of the known names: clip-tokenizer, "),
    ] {
        for command in [&["models", "pull", name][..], &["models", "remove", name, "--yes"]] {
            let message = home.refused(command, &[], 2);
            assert!(message.starts_with(&format!("error: {name}: {reason}")), "{command:?}: {message}");
        }
    }
    assert!(folder.exists() && file.exists());
    assert_eq!(server.requests(), [""; 0]);
}

/// It is no fault of the network: nothing is tried again.
#[test]
fn an_endpoint_that_is_no_address_is_named() {
    for endpoint in ["garbage", "http://", "ftp://hub.example"] {
        let message = Home::new(endpoint).refused(&["models", "pull", "tiny/model"], &[], 2);
        assert!(
            message.starts_with(&format!("error: HF_ENDPOINT is `{endpoint}`, but must be")),
            "{message}"
        );
    }
}

/// A branch and a commit are used by the repository's name, as `main` is.
#[test]
fn another_revision_is_used_by_name() {
    let (files, _) = repository();
    let server = Server::start(files);
    for revision in ["dev", COMMIT] {
        let home = Home::new(&server.url);
        server.misbehave(Faults { stuck_at: Some(150_000), ..Faults::default() });
        home.refused(&["models", "pull", "tiny/model", "--revision", revision], &[], 1);
        // What is not whole is no model yet, whatever it is called.
        home.refused(&["models", "inspect", "tiny/model"], &[], 2);

        server.misbehave(Faults::default());
        home.succeed(&["models", "pull", "tiny/model", "--revision", revision]);
        assert!(!home.repository().join("refs/main").exists());
        assert!(home.succeed(&["models", "list"]).contains("tiny/model"), "{revision}");
        home.succeed(&["models", "inspect", "tiny/model"]);
        home.succeed(&["generate", "x", "--model", "tiny/model", "--steps", "1", "-o", "x.png"]);
        home.succeed(&["models", "remove", "tiny/model", "--yes"]);
    }
}

/// One message, which names file, field, value and limit, and no job that fails.
#[test]
fn a_scheduler_that_nothing_can_run_with_is_refused_with_the_model() {
    let home = Home::new("http://127.0.0.1:9");
    let model = home.path("model");
    for (name, content) in files_in(&spelt::model("sd15")) {
        std::fs::create_dir_all(model.join(&name).parent().unwrap()).unwrap();
        std::fs::write(model.join(name), content).unwrap();
    }
    let path = model.join("scheduler/scheduler_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["beta_start"] = (-1).into();
    std::fs::write(&path, config.to_string()).unwrap();
    let model = model.display().to_string();
    let message = home.refused(&["generate", "x", "--model", &model, "--sampler", "euler"], &[], 2);
    let told = format!(
        "error: {}: `beta_start` is -1, but supported is more than 0 and at most 1\n",
        path.display()
    );
    assert_eq!(message, told);
}

#[test]
fn cut_connections_are_resumed_where_they_ended() {
    let (files, _) = repository();
    let server = Server::start(files.clone());
    let home = Home::new(&server.url);
    server.misbehave(Faults { cut_after: Some(300_000), ..Faults::default() });
    home.succeed(&["models", "pull", "tiny/model"]);
    let found = files_in(&home.repository().join("snapshots").join(COMMIT));
    assert!(found[weights()] == files[weights()]);
    let digest = etag(weights(), &files[weights()]);
    let ranges: Vec<String> = server
        .requests()
        .into_iter()
        .filter_map(|request| {
            request.strip_prefix(&format!("GET /cdn/{digest}")).map(|r| r.trim().to_owned())
        })
        .collect();
    let expected: Vec<String> = (0..files[weights()].len())
        .step_by(300_000)
        .map(|start| if start == 0 { String::new() } else { format!("bytes={start}-") })
        .collect();
    assert_eq!(ranges, expected);
}

#[test]
fn a_hub_that_is_unwell_is_asked_again() {
    let (files, _) = repository();
    let server = Server::start(files);
    server.misbehave(Faults { unwell: 4, ..Faults::default() });
    Home::new(&server.url).succeed(&["models", "pull", "tiny/model"]);
    server.misbehave(Faults { unwell: 1000, ..Faults::default() });
    let message = Home::new(&server.url).refused(&["models", "pull", "tiny/model"], &[], 1);
    assert!(message.contains("/api/models/tiny/model"), "{message}");
}

#[test]
fn a_broken_off_download_goes_on_with_the_next_command() {
    let (files, _) = repository();
    let server = Server::start(files.clone());
    let home = Home::new(&server.url);
    server.misbehave(Faults { stuck_at: Some(150_000), ..Faults::default() });
    let message = home.refused(&["models", "pull", "tiny/model"], &[], 1);
    assert!(message.contains("150000 of") && message.contains(".safetensors"), "{message}");
    // What is not whole is no model yet.
    assert!(!home.repository().join("refs/main").exists());
    home.refused(&["generate", "x", "--model", "tiny/model"], &[], 2);

    server.misbehave(Faults::default());
    server.requests();
    home.succeed(&["models", "pull", "tiny/model"]);
    let again = server.requests();
    assert!(again.iter().any(|request| request.ends_with("bytes=150000-")), "{again:?}");
    let found = files_in(&home.repository().join("snapshots").join(COMMIT));
    assert!(found.iter().all(|(name, content)| files[name] == *content));
}

#[test]
fn a_server_without_ranges_is_asked_again_for_everything() {
    let (files, _) = repository();
    let server = Server::start(files.clone());
    let home = Home::new(&server.url);
    server.misbehave(Faults { stuck_at: Some(150_000), ..Faults::default() });
    home.refused(&["models", "pull", "tiny/model"], &[], 1);
    server.misbehave(Faults { no_ranges: true, ..Faults::default() });
    home.succeed(&["models", "pull", "tiny/model"]);
    let found = files_in(&home.repository().join("snapshots").join(COMMIT));
    assert!(found.iter().all(|(name, content)| files[name] == *content));
}

#[test]
fn lies_about_sizes_and_contents_are_noticed() {
    let (files, _) = repository();
    let server = Server::start(files);
    for (faults, word) in [
        (Faults { size_lie: 5, ..Faults::default() }, "bytes are here"),
        (Faults { size_lie: -5, ..Faults::default() }, "sends more"),
        (Faults { corrupt: true, ..Faults::default() }, "checksum"),
    ] {
        let home = Home::new(&server.url);
        server.misbehave(faults.clone());
        let message = home.refused(&["models", "pull", "tiny/model"], &[], 1);
        assert!(message.contains(word) && message.contains(".safetensors"), "{faults:?}: {message}");
        assert!(!home.repository().join("refs/main").exists(), "{faults:?}");
        // An honest server makes it good.
        server.misbehave(Faults::default());
        home.succeed(&["models", "pull", "tiny/model"]);
    }
}

#[test]
fn tokens_and_offline_mode_are_those_of_the_python_tools() {
    let (files, _) = repository();
    let server = Server::start(files);
    server.misbehave(Faults { token: Some("secret"), ..Faults::default() });
    let home = Home::new(&server.url);
    let pull = ["models", "pull", "tiny/model"];
    let message = home.refused(&pull, &[], 2);
    assert!(message.contains("HF_TOKEN"), "{message}");
    home.refused(&pull, &[("HF_TOKEN", "wrong")], 2);
    server.requests();
    let message = home.refused(&pull, &[("HF_HUB_OFFLINE", "1"), ("HF_TOKEN", "secret")], 2);
    assert!(message.contains("HF_HUB_OFFLINE") && server.requests().is_empty(), "{message}");
    // The server refuses the token where the large files are; it must not get that far.
    let output = home.run(&pull, &[("HF_TOKEN", "secret")]);
    assert!(output.status.success(), "{}", text(&output.stderr));

    // The file that a login leaves.
    let home = Home::new(&server.url);
    std::fs::create_dir_all(home.path("home")).unwrap();
    std::fs::write(home.path("home/token"), "secret\n").unwrap();
    home.succeed(&pull);
}

#[test]
fn a_hub_cannot_write_outside_its_folder() {
    let (files, _) = repository();
    let server = Server::start(files);
    let home = Home::new(&server.url);
    server.misbehave(Faults { commit: Some("../../../x"), ..Faults::default() });
    let message = home.refused(&["models", "pull", "tiny/model"], &[], 1);
    assert!(message.contains("no commit"), "{message}");
    assert!(!home.path("home").exists());
    server.misbehave(Faults::default());
    let message = home.refused(&["models", "pull", "tiny/model", "../../evil"], &[], 2);
    assert!(message.contains("evil"), "{message}");
    home.refused(&["models", "pull", "tiny/model", "--revision", "../x"], &[], 2);
    home.refused(&["models", "pull", "tiny/other"], &[], 2);
}

fn folder_part(model: &Value, name: &str) -> Value {
    model["parts"].as_array().unwrap().iter().find(|part| part["name"] == name).unwrap().clone()
}

/// The whole way of a single file: told about, used, converted, used again, with the same picture each time.
#[test]
fn a_single_file_is_inspected_used_and_converted() {
    let home = Home::new("http://127.0.0.1:9");
    let file = spelt::write("sd15", home.folder.path());
    let (file, config) = (file.display().to_string(), spelt::model("sd15").display().to_string());
    let told = home.json(&["models", "inspect", &file, "--model-config", &config, "--json"]);
    assert_eq!((&told["kind"], &told["inpainting"]), (&"pipeline".into(), &false.into()));
    assert_eq!(told["parts"].as_array().unwrap().len(), 3);
    let model = home.json(&["models", "inspect", &config, "--json"]);
    assert_eq!((&told["parameters"], &told["memory"]), (&model["parameters"], &model["memory"]));
    assert!(told["memory"]["f32"]["total"].as_u64() > told["memory"]["bf16"]["total"].as_u64());
    let printed = home.succeed(&["models", "inspect", &file]);
    assert!(printed.contains("SD 1.x") && printed.contains("unet"), "{printed}");
    // A folder of one part, and a family that only the pipeline's name tells.
    let part = |model: &str, folder: &str| {
        let path = spelt::model(model).join(folder).display().to_string();
        home.json(&["models", "inspect", &path, "--json"])
    };
    for (folder, kind) in [("unet", "unet"), ("vae", "vae"), ("text_encoder", "text encoder")] {
        let found = part("sd15", folder);
        assert_eq!(found["kind"], kind);
        let whole = folder_part(&model, folder);
        assert_eq!((&found["parameters"], &found["bytes"]), (&whole["parameters"], &whole["bytes"]));
        let weights = found["memory"]["bf16"]["weights"].as_u64().unwrap();
        assert_eq!(weights, 2 * found["parameters"].as_u64().unwrap());
    }
    let xl = part("sdxl", "");
    assert_eq!((&xl["family"], &xl["prediction"]), (&"SDXL".into(), &"epsilon".into()));

    let message = home.refused(&["generate", "x", "--model", &file], &[], 2);
    assert!(message.contains("clip-tokenizer") && message.contains("--model-config"), "{message}");
    let limit = ["generate", "x", "--model", &file, "--model-config", &config, "--memory-limit", "1MB"];
    let message = home.refused(&limit, &[], 2);
    assert!(message.contains("MB") && message.contains("model.safetensors"), "{message}");

    let picture = |name: &str, arguments: &[&str]| {
        let common = [
            "generate",
            "a cat",
            "--steps",
            "2",
            "--seed",
            "3",
            "--dtype",
            "f32",
            "--no-metadata",
            "-o",
            name,
        ];
        home.succeed(&[&common, arguments].concat());
        std::fs::read(home.path(name)).unwrap()
    };
    let expected = picture("folder.png", &["--model", &config]);
    assert!(picture("single.png", &["--model", &file, "--model-config", &config]) == expected);
    home.succeed(&["models", "convert", &file, "converted", "--model-config", &config]);
    assert!(picture("converted.png", &["--model", "converted"]) == expected);

    // Names for both, in a file.
    let names = format!(
        r#"{{"models": {{"mine": {{"model": "model.safetensors", "config": "{config}"}}, "folder": "./converted"}}}}"#
    );
    std::fs::write(home.path("names.json"), names).unwrap();
    for name in ["mine", "folder"] {
        let arguments = ["--model", name, "--models-file", "names.json"];
        assert!(picture("named.png", &arguments) == expected, "{name}");
    }
    let listed = home.json(&["models", "list", "--models-file", "names.json", "--json"]);
    let mine = listed["models"].as_array().unwrap().iter().find(|row| row["name"] == "mine").unwrap();
    assert_eq!(mine["present"], true);
}

#[test]
fn another_vae_and_less_precision_change_the_picture_a_little() {
    let home = Home::new("http://127.0.0.1:9");
    let model = spelt::model("sd15").display().to_string();
    let picture = |name: &str, arguments: &[&str]| {
        let common = ["generate", "a cat", "--steps", "2", "--seed", "3", "--dtype", "f32", "-o", name];
        home.succeed(&[&common, arguments].concat());
        image::open(home.path(name)).unwrap().to_rgb8()
    };
    let plain = picture("plain.png", &["--model", &model]);
    assert_eq!(picture("same.png", &["--model", &model, "--vae", &model]), plain);
    let other = spelt::model("sdxl").join("vae").display().to_string();
    assert_ne!(picture("other.png", &["--model", &model, "--vae", &other]), plain);

    home.succeed(&["models", "convert", &model, "half", "--dtype", "bf16"]);
    let half = home.json(&["models", "inspect", "half", "--json"]);
    let whole = home.json(&["models", "inspect", &model, "--json"]);
    assert_eq!(half["parameters"], whole["parameters"]);
    assert_eq!(2 * half["bytes"].as_u64().unwrap(), whole["bytes"].as_u64().unwrap());
    let rounded = picture("half.png", &["--model", "half"]);
    let far = plain.as_raw().iter().zip(rounded.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(far > 0 && far < 64, "{far}");

    let message = home.refused(&["models", "convert", &model, "half"], &[], 2);
    assert!(message.contains("not empty"), "{message}");
    let lora = home.path("x.safetensors");
    std::fs::write(&lora, b"PK\x03\x04").unwrap();
    let message = home.refused(&["models", "inspect", "x.safetensors"], &[], 2);
    assert!(message.contains("pickle"), "{message}");
}
