//! Noise against `fixtures/noise.json`, which says which torch made it.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which clippy does not know for tests")]

use std::fs;

use sd_inference::rng::{BatchNoise, Mt19937, NoiseKind, NoiseSource};
use serde::Deserialize;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/noise.json");

#[derive(Deserialize)]
struct Fixture {
    words: Vec<Words>,
    draws: Vec<Seeded>,
    sequences: std::collections::BTreeMap<String, Sequence>,
    batches: Batches,
}

#[derive(Deserialize)]
struct Words {
    seed: String,
    u32: Vec<u32>,
}

#[derive(Deserialize)]
struct Seeded {
    seed: String,
    #[serde(flatten)]
    draw: Draw,
}

#[derive(Deserialize)]
struct Sequence {
    seed: String,
    draws: Vec<Draw>,
}

#[derive(Deserialize)]
struct Batches {
    list_of_generators_seeds_42_43: Draw,
    one_generator_seed_42: Draw,
    one_generator_seed_42_shape_2_1_3_3: Draw,
}

/// One `torch.randn`: all its values, or both ends.
#[derive(Deserialize)]
struct Draw {
    shape: Vec<usize>,
    sum_f64: f64,
    crc32: u32,
    #[serde(default)]
    values: Vec<f32>,
    #[serde(default)]
    first: Vec<f32>,
    #[serde(default)]
    last: Vec<f32>,
}

fn fixture() -> Fixture {
    let text = fs::read_to_string(FIXTURE)
        .unwrap_or_else(|error| panic!("{FIXTURE}: {error}; `cargo xtask fixtures` makes it"));
    serde_json::from_str(&text).unwrap()
}

/// CRC-32 (IEEE 802.3) of the little-endian bytes.
fn crc32(values: &[f32]) -> u32 {
    let byte = |crc: u32, byte: u8| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| {
                if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
            },
        )
    };
    !values.iter().flat_map(|value| value.to_le_bytes()).fold(u32::MAX, byte)
}

impl Draw {
    fn check(&self, source: &mut dyn NoiseSource, what: &str) {
        let mut drawn = vec![0f32; self.shape.iter().product()];
        source.fill_normal(&mut drawn);
        let ends = [(&self.values, 0), (&self.first, 0), (&self.last, drawn.len() - self.last.len())];
        for (wanted, start) in ends {
            for (i, (drawn, wanted)) in drawn[start..].iter().zip(wanted).enumerate() {
                assert!((drawn - wanted).abs() <= 1e-6, "{what}, value {}: {drawn}, not {wanted}", start + i);
            }
        }
        let sum: f64 = drawn.iter().copied().map(f64::from).sum();
        assert!((sum - self.sum_f64).abs() < 1e-3, "{what}: sum {sum}, not {}", self.sum_f64);
        if drawn.len() >= 16 {
            assert_eq!(crc32(&drawn), self.crc32, "{what}: the bits differ");
        }
    }
}

#[test]
fn random_words_are_torchs() {
    for words in fixture().words {
        let mut own = Mt19937::new(words.seed.parse().unwrap());
        let own: Vec<u32> = words.u32.iter().map(|_| own.next_u32()).collect();
        assert_eq!(own, words.u32, "seed {}", words.seed);
    }
}

#[test]
fn single_draws_are_torchs() {
    for Seeded { seed, draw } in fixture().draws {
        let mut source = NoiseKind::TorchCpu.source(seed.parse().unwrap());
        draw.check(&mut source, &format!("seed {seed}, shape {:?}", draw.shape));
    }
}

#[test]
fn draws_after_draws_are_torchs() {
    for (name, sequence) in fixture().sequences {
        let mut source = NoiseKind::TorchCpu.source(sequence.seed.parse().unwrap());
        for (i, draw) in sequence.draws.iter().enumerate() {
            draw.check(&mut source, &format!("{name}, draw {i}"));
        }
    }
}

#[test]
fn batches_are_those_of_randn_tensor() {
    let batches = fixture().batches;
    let mut each = BatchNoise::new(NoiseKind::TorchCpu, 42, 2);
    batches.list_of_generators_seeds_42_43.check(&mut each, "a generator for each image");
    let mut one = NoiseKind::TorchCpu.source(42);
    batches.one_generator_seed_42.check(&mut one, "one generator");
    let mut one = NoiseKind::TorchCpu.source(42);
    batches.one_generator_seed_42_shape_2_1_3_3.check(&mut one, "one generator, small images");
}
