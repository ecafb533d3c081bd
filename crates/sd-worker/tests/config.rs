//! File, environment and flags as an operator meets them: the real binary.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn config(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sd-worker"))
        .arg("config")
        .args(arguments)
        .env("XDG_CONFIG_HOME", folder)
        .envs(variables.iter().copied())
        .current_dir(folder)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn report(output: &Output, key: &str) -> (Value, String) {
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = report["settings"].as_array().unwrap().iter().find(|setting| setting["key"] == key).unwrap();
    (found["value"].clone(), found["source"].as_str().unwrap().to_owned())
}

#[test]
fn each_layer_wins_over_the_one_below_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sd-worker")).unwrap();
    let path = folder.path().join("sd-worker/config.toml");
    std::fs::write(&path, "queue-capacity = 5\ndrain-timeout = 6\ndtype = \"f32\"\n").unwrap();
    let variables = [("SD_WORKER_DRAIN_TIMEOUT", "7"), ("SD_WORKER_DTYPE", "bf16")];
    let output = config(folder.path(), &["--json", "--dtype=f32"], &variables);
    let own = |value: Value, source: &str| (value, source.to_owned());
    assert_eq!(report(&output, "queue-capacity"), own(5.into(), "file"));
    assert_eq!(report(&output, "drain-timeout"), own(7.into(), "environment"));
    assert_eq!(report(&output, "dtype"), own("f32".into(), "flag"));
    assert_eq!(report(&output, "model"), own(serde_json::json!(["demo"]), "default"));
    assert_eq!(report(&output, "vae"), own(Value::Null, "default"));
    let toml = text(&config(folder.path(), &[], &variables).stdout);
    for (line, from) in [
        ("queue-capacity = 5 ", "config.toml:1"),
        ("drain-timeout = 7 ", "SD_WORKER_DRAIN_TIMEOUT"),
        ("dtype = \"bf16\" ", "SD_WORKER_DTYPE"),
        ("# vae = ", "not set"),
    ] {
        let found = toml.lines().find(|found| found.starts_with(line)).unwrap_or_else(|| panic!("{toml}"));
        assert!(found.ends_with(from), "{found}");
    }
}

/// What is printed is a configuration file, and it says the same.
#[test]
fn what_is_printed_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let flags =
        ["--model=a \"b\"", "--controlnet=x=y", "--threads=2", "--memory-limit=1GB", "--listen=[::1]:1"];
    let printed = config(folder.path(), &flags, &[]);
    std::fs::write(folder.path().join("again.toml"), &printed.stdout).unwrap();
    let values = |output: &Output| -> Vec<(Value, Value)> {
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let settings = report["settings"].as_array().unwrap();
        settings.iter().map(|setting| (setting["key"].clone(), setting["value"].clone())).collect()
    };
    let told = values(&config(folder.path(), &[&["--json"], &flags[..]].concat(), &[]));
    let again = config(folder.path(), &["--json", "--config=again.toml"], &[]);
    assert_eq!(values(&again), told, "{}{}", text(&printed.stdout), text(&again.stderr));
}

/// So it is with tables of models, where what a table does not say is not said again.
#[test]
fn tables_of_models_are_printed_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = "upscaler = \"/u\"\n[[models]]\nname = \"a\"\nmodel = \"/models/a\"\nembedding = [\"/e\"]\n\
        [[models]]\nmodel = \"b\"\ndtype = \"bf16\"\n";
    std::fs::write(folder.path().join("c.toml"), file).unwrap();
    let json = |name: &str| -> Value {
        let output = config(
            folder.path(),
            &["--json", &format!("--config={name}")],
            &[("SD_WORKER_VAE_TILING", "never")],
        );
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let told = |report: &Value, table: usize, key: &str| {
        let settings = report["models"][table].as_array().unwrap();
        let found = settings.iter().find(|setting| setting["key"] == key).unwrap();
        (found["value"].clone(), found["source"].as_str().unwrap().to_owned())
    };
    let report = json("c.toml");
    for (table, key, value, source) in [
        (0, "name", Value::from("a"), "file"),
        (0, "model", "/models/a".into(), "file"),
        (0, "embedding", serde_json::json!(["/e"]), "file"),
        (0, "dtype", "auto".into(), "worker"),
        (0, "upscaler", "/u".into(), "worker"),
        (0, "vae-tiling", "never".into(), "worker"),
        (1, "name", Value::Null, "default"),
        (1, "dtype", "bf16".into(), "file"),
    ] {
        assert_eq!(told(&report, table, key), (value, source.to_owned()), "{table} {key}");
    }
    let printed = text(&config(folder.path(), &["--config=c.toml"], &[]).stdout);
    assert!(printed.contains("\n[[models]]\nname = \"a\" ") && printed.contains("c.toml:7\n"), "{printed}");
    std::fs::write(folder.path().join("again.toml"), printed).unwrap();
    let values = |report: &Value| -> Vec<Value> {
        let tables = report["models"].as_array().unwrap();
        let settings = tables.iter().chain([&report["settings"]]).flat_map(|table| table.as_array().unwrap());
        settings.map(|setting| serde_json::json!([setting["key"], setting["value"]])).collect()
    };
    assert_eq!(values(&json("again.toml")), values(&report));
}

#[test]
fn secrets_are_not_shown_whatever_layer_holds_them() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("c.toml"), "token = \"t0p-s3cret\"\n").unwrap();
    let from_file = ["--config=c.toml"];
    let variable = [("SD_WORKER_TOKEN", "t0p-s3cret")];
    for (flag, variables) in
        [("--config=c.toml", &[][..]), ("--threads=1", &variable), ("--token=t0p-s3cret", &[])]
    {
        for form in [&[flag][..], &[flag, "--json"]] {
            let output = config(folder.path(), form, variables);
            let printed = text(&output.stdout) + &text(&output.stderr);
            assert!(printed.contains("********") && !printed.contains("t0p-s3cret"), "{printed}");
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let warned = |mode: u32| {
            let path = folder.path().join("c.toml");
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
            text(&config(folder.path(), &from_file, &[]).stderr).contains("can be read by others")
        };
        assert!(warned(0o644) && !warned(0o600));
    }
}

#[test]
fn a_wrong_file_ends_with_2_and_says_where() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("c.toml"), "\nqueue-capacty = 5\ntoken = \"un closed\n").unwrap();
    let serve = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_sd-worker"))
            .arg("serve")
            .args(arguments)
            .current_dir(folder.path())
            .output()
    };
    let output = serve(&["--config=c.toml"]).unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("c.toml:3") && !said.contains("un closed"), "{said}");
    std::fs::write(folder.path().join("c.toml"), "\nqueue-capacty = 5\n").unwrap();
    let said = text(&serve(&["--config=c.toml"]).unwrap().stderr);
    assert!(said.contains("c.toml:2") && said.contains("did you mean `queue-capacity`"), "{said}");
    let output = serve(&["--config=nowhere.toml"]).unwrap();
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("nowhere.toml"));
}

/// docs/configuration.md has the table that the flags give. `cargo xtask reference` writes it.
#[test]
fn the_reference_is_what_the_flags_say() {
    let folder = tempfile::tempdir().unwrap();
    let table = text(&config(folder.path(), &["--reference"], &[]).stdout);
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md")).unwrap();
    assert!(
        table.lines().count() > 20 && page.replace("\r\n", "\n").contains(&table),
        "run `cargo xtask reference`:\n{table}"
    );
}

/// Builds with it have tests of their own.
#[test]
#[cfg(not(feature = "otel"))]
fn traces_are_refused_where_they_are_not_built_in() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("c.toml"), "otlp-endpoint = \"http://c:4318\"\n").unwrap();
    let flag = &["--otlp-endpoint=http://c:4318"][..];
    let variable = &[("SD_WORKER_OTLP_ENDPOINT", "http://c:4318")][..];
    for (arguments, variables) in [(flag, &[][..]), (&[], variable), (&["--config=c.toml"], &[])] {
        let output = config(folder.path(), arguments, variables);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.contains("otlp-endpoint") && said.contains("built without the feature `otel`"),
            "{said}"
        );
    }
}

#[test]
fn a_misspelt_variable_is_told_and_the_rest_counts() {
    let folder = tempfile::tempdir().unwrap();
    let variables = [("SD_WORKER_QUEUE_CAPACTIY", "5"), ("SD_WORKER_DRAIN_TIMEOUT", "7")];
    let output = config(folder.path(), &["--json"], &variables);
    let warned = text(&output.stderr);
    assert!(
        warned.contains("SD_WORKER_QUEUE_CAPACTIY") && warned.contains("SD_WORKER_QUEUE_CAPACITY?"),
        "{warned}"
    );
    assert!(!warned.contains("DRAIN_TIMEOUT"), "{warned}");
    assert_eq!(report(&output, "drain-timeout").0, 7);
}
