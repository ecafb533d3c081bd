//! `cargo metadata` of this workspace, read as far as the rules need it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// A dependency as a manifest declares it.
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Only tests, examples and benchmarks see it.
    pub(crate) is_dev: bool,
    /// It is a member of this workspace.
    pub(crate) is_member: bool,
}

/// A member of the workspace.
pub(crate) struct Package {
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) features: BTreeMap<String, Vec<String>>,
}

/// The members of the workspace by name, without `xtask`, which ships with nothing.
pub(crate) fn members() -> BTreeMap<String, Package> {
    let metadata = cargo_metadata();
    let packages = array(&metadata["packages"]).iter().map(|package| (text(&package["name"]), read(package)));
    packages.filter(|(name, _)| name != "xtask").collect()
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(package: &Value) -> Package {
    let dependencies = array(&package["dependencies"]).iter().map(|dependency| Dependency {
        name: text(&dependency["name"]),
        is_dev: dependency["kind"] == "dev",
        is_member: dependency["path"].is_string(),
    });
    let features = package["features"].as_object().unwrap().iter();
    Package {
        dependencies: dependencies.collect(),
        features: features
            .map(|(name, list)| (name.clone(), array(list).iter().map(text).collect()))
            .collect(),
    }
}

fn cargo_metadata() -> Value {
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["metadata", "--format-version=1", "--no-deps", "--offline", "--locked"])
        .current_dir(root());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
