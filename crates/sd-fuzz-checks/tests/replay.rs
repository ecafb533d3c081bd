//! Everything that a fuzzer ever kept, run again.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use sd_fuzz_checks::CHECKS;

#[test]
fn every_kept_input_still_passes() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, check) in CHECKS {
        let mut files: Vec<_> =
            fs::read_dir(corpora.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() > 4, "there is no corpus for `{name}`");
        for file in files {
            let data = fs::read(&file).unwrap();
            // The name of the input that fails stands above its panic.
            println!("{}", file.display());
            check(&data);
        }
        let kept = fs::read_to_string(corpora.join(name).with_extension("hex")).unwrap();
        assert!(kept.lines().count() > 4, "no fuzzer ever ran for `{name}`");
        for line in kept.lines() {
            println!("{name}: {line}");
            let digits: Vec<char> = line.chars().collect();
            let pairs = digits.chunks(2).map(|pair| pair.iter().collect::<String>());
            let data: Vec<u8> = pairs.map(|pair| u8::from_str_radix(&pair, 16).unwrap()).collect();
            check(&data);
        }
    }
}

#[test]
fn every_check_has_a_fuzzer_and_every_fuzzer_a_check() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
    let mut fuzzers: Vec<String> = fs::read_dir(targets)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    fuzzers.sort();
    let mut checks: Vec<&str> = CHECKS.iter().map(|(name, _)| *name).collect();
    checks.sort_unstable();
    assert_eq!(fuzzers, checks);
}
