//! No crate reaches up, and each knows only what `docs/architecture.md` lets it know.

use std::process::Command;

use crate::metadata::{members, root};

/// What one crate may use.
struct Layer {
    name: &'static str,
    /// The members of the workspace that it may depend on.
    uses: &'static [&'static str],
    /// Crates from outside that it must not know. `candle-*` stands for every name with that beginning.
    must_not_know: &'static [&'static str],
}

/// From the bottom to the top: a crate stands below all that may use it.
const LAYERS: &[Layer] = &[
    Layer {
        name: "operations-contract",
        uses: &[],
        must_not_know: &["tokio", "candle-*", "hyper", "hyper-util", "rayon"],
    },
    Layer { name: "sd-kernels", uses: &[], must_not_know: &["tokio", "hyper", "hyper-util"] },
    Layer { name: "sd-models", uses: &["sd-kernels"], must_not_know: &["tokio", "hyper", "hyper-util"] },
    Layer {
        name: "sd-inference",
        uses: &["sd-kernels", "sd-models"],
        must_not_know: &["tokio", "tokio-util", "hyper", "hyper-util"],
    },
    Layer {
        name: "sd-engine",
        uses: &["operations-contract", "sd-inference"],
        must_not_know: &["hyper", "hyper-util", "http", "http-body-util"],
    },
    Layer { name: "sd-http", uses: &["operations-contract", "sd-engine"], must_not_know: &["candle-*"] },
    Layer {
        name: "sd-worker",
        uses: &["operations-contract", "sd-inference", "sd-engine", "sd-http"],
        must_not_know: &[],
    },
    // Beside the worker, over everything that takes bytes from outside.
    Layer {
        name: "sd-fuzz-checks",
        uses: &["operations-contract", "sd-models", "sd-inference", "sd-engine", "sd-http"],
        must_not_know: &[],
    },
];

#[test]
fn every_crate_has_a_layer() {
    let known: Vec<&str> = LAYERS.iter().map(|layer| layer.name).collect();
    for name in members().keys() {
        assert!(
            known.contains(&name.as_str()),
            "{name} has no layer: place it in {} and docs/architecture.md",
            file!()
        );
    }
}

#[test]
fn no_crate_reaches_up_or_aside() {
    let members = members();
    let mut wrong = Vec::new();
    for (index, layer) in LAYERS.iter().enumerate() {
        let below: Vec<&str> = LAYERS[..index].iter().map(|layer| layer.name).collect();
        assert!(layer.uses.iter().all(|name| below.contains(name)), "the table lets {} reach up", layer.name);

        for dependency in members[layer.name].dependencies.iter().filter(|dependency| dependency.is_member) {
            // Tests may look further down than the code, but not up.
            let allowed = if dependency.is_dev { &below } else { layer.uses };
            if !allowed.contains(&dependency.name.as_str()) {
                wrong.push(format!("{} must not depend on {}", layer.name, dependency.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_crate_knows_only_its_own_trade() {
    let members = members();
    let mut wrong = Vec::new();
    for layer in LAYERS {
        for dependency in members[layer.name].dependencies.iter().filter(|dependency| !dependency.is_dev) {
            if layer.must_not_know.iter().any(|pattern| matches(pattern, &dependency.name)) {
                wrong.push(format!("{} must not depend on {}", layer.name, dependency.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The browser gets this crate as WebAssembly: what it brings along counts, not only what it names.
#[test]
fn the_contract_brings_nothing_heavy_along() {
    let contract = LAYERS.iter().find(|layer| layer.name == "operations-contract").unwrap();
    let mut command = Command::new(env!("CARGO"));
    command.args(["tree", "--package", contract.name, "--edges", "normal", "--prefix", "none"]);
    let output =
        command.args(["--format", "{lib}", "--offline", "--locked"]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let tree = String::from_utf8(output.stdout).unwrap();
    let heavy =
        |name: &&str| contract.must_not_know.iter().any(|pattern| matches(pattern, &name.replace('_', "-")));
    let found: Vec<&str> = tree.lines().map(str::trim).filter(heavy).collect();
    assert!(found.is_empty(), "operations-contract brings {found:?} along");
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    }
}
