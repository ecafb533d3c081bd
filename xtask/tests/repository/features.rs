//! Accelerators are features that exist in every crate on the way down to candle, and only forward downwards.

use std::collections::BTreeMap;

use crate::metadata::{Package, members};

const ACCELERATORS: &[&str] = &["cuda", "cudnn", "flash-attn", "metal", "accelerate"];

/// The crates between the binary and candle. `sd-http` is not one of them: it knows no tensors.
const CARRIERS: &[&str] = &["sd-models", "sd-inference", "sd-engine", "sd-worker"];

/// The crates in which `cfg(feature = ..)` may ask for an accelerator.
pub(crate) const MAY_ASK: &[&str] = &["sd-kernels", "sd-models"];

#[test]
fn every_carrier_has_every_accelerator() {
    let members = members();
    for carrier in CARRIERS {
        for accelerator in ACCELERATORS {
            assert!(
                members[*carrier].features.contains_key(*accelerator),
                "{carrier} lacks the feature {accelerator}"
            );
        }
    }
}

#[test]
fn an_accelerator_is_forwarded_to_every_crate_below_that_has_it() {
    let members = members();
    for carrier in CARRIERS {
        for accelerator in ACCELERATORS {
            let enabled = enabled(&members[*carrier], accelerator);
            for dependency in members[*carrier].dependencies.iter().filter(|d| d.is_member && !d.is_dev) {
                let below = &members[&dependency.name];
                let entry = format!("{}/{accelerator}", dependency.name);
                if below.features.contains_key(*accelerator) {
                    assert!(enabled.contains(&entry), "{carrier}/{accelerator} does not enable {entry}");
                }
            }
        }
    }
}

#[test]
fn an_accelerator_enables_only_accelerators_and_what_is_below() {
    let members = members();
    for carrier in CARRIERS {
        let package = &members[*carrier];
        for accelerator in ACCELERATORS {
            for entry in &package.features[*accelerator] {
                let ok = match entry.split_once('/') {
                    Some((name, _)) => {
                        package.dependencies.iter().any(|d| d.name == name.trim_end_matches('?'))
                    }
                    None => entry.starts_with("dep:") || ACCELERATORS.contains(&entry.as_str()),
                };
                assert!(ok, "{carrier}/{accelerator} enables {entry}");
            }
        }
    }
}

#[test]
fn at_the_bottom_an_accelerator_reaches_candle() {
    let models = &members()["sd-models"];
    for accelerator in ["cuda", "cudnn", "metal", "accelerate"] {
        let entry = format!("candle-core/{accelerator}");
        assert!(
            enabled(models, accelerator).contains(&entry),
            "sd-models/{accelerator} does not enable {entry}"
        );
    }
    for nvidia in ["cudnn", "flash-attn"] {
        let entry = "candle-core/cuda".to_owned();
        assert!(enabled(models, nvidia).contains(&entry), "sd-models/{nvidia} works without cuda");
    }
}

#[test]
fn no_accelerator_is_on_by_default() {
    for (name, package) in members() {
        let default = enabled(&package, "default");
        let on = ACCELERATORS
            .iter()
            .find(|a| default.iter().any(|entry| entry.split('/').next_back() == Some(**a)));
        assert_eq!(on, None, "{name} enables an accelerator by default");
    }
}

/// Everything that a feature enables, through the other features of its own crate as well.
fn enabled(package: &Package, feature: &str) -> Vec<String> {
    let features: &BTreeMap<String, Vec<String>> = &package.features;
    let mut found = vec![feature.to_owned()];
    let mut next = 0;
    while next < found.len() {
        for entry in features.get(&found[next]).into_iter().flatten() {
            if !found.contains(entry) {
                found.push(entry.clone());
            }
        }
        next += 1;
    }
    found
}
