//! Brownian paths that k-diffusion's samplers for the reverse SDE take their noise from.
//!
//! A path is fixed by its seed alone: whoever asks for its increment over an interval gets the same, whatever was asked
//! before. It is a binary tree: the increment over the whole is drawn, then how it divides between the halves, and so on
//! until the ends of the interval are met. References: `torchsde.BrownianTree` (Li and others, 2020), which hashes the seed
//! of each node by numpy's `SeedSequence` (O'Neill's `seed_seq`).

use super::{NoiseKind, NoiseSource};

/// How many words the hash of a seed spreads over.
const POOL: usize = 24;
/// The most halvings, should rounding ever keep an interval's ends from being met: 2^64 of them are beyond f64.
const MAX_DEPTH: u32 = 64;

/// One path over an interval, of a number of independent values.
pub(crate) struct BrownianTree {
    kind: NoiseKind,
    seed: u64,
    start: f64,
    end: f64,
    /// The increments over the whole interval.
    whole: Vec<f32>,
}

/// A part of the interval: `key` counts the parts of its depth from the start.
#[derive(Clone, Copy)]
struct Node {
    start: f64,
    end: f64,
    key: u64,
    depth: u32,
}

impl BrownianTree {
    /// The path of `seed` from `start` to `end`, of so many values.
    pub(crate) fn new(kind: NoiseKind, seed: u64, (start, end): (f32, f32), values: usize) -> Self {
        let (start, end) = (f64::from(start), f64::from(end));
        let [first, ..] = seed_state(seed, None);
        let deviation = (end - start).sqrt() as f32;
        let whole = drawn(kind, first, values).into_iter().map(|value| value * deviation).collect();
        Self { kind, seed, start: rounded(start), end: rounded(end), whole }
    }

    /// How far the path goes between two places of its interval, `from` the lower.
    pub(crate) fn increment(&self, from: f32, to: f32) -> Vec<f32> {
        let place = |at: f32| rounded(f64::from(at).clamp(self.start, self.end));
        let (from, to) = (place(from), place(to));
        let mut sum = None;
        if from < to {
            let root = Node { start: self.start, end: self.end, key: 0, depth: 0 };
            self.add(root, &self.whole, (from, to), &mut sum);
        }
        sum.unwrap_or_else(|| vec![0.0; self.whole.len()])
    }

    /// Adds to `sum` what of `node`, over which the path goes `values`, lies between `from` and `to`.
    fn add(&self, node: Node, values: &[f32], (from, to): (f64, f64), sum: &mut Option<Vec<f32>>) {
        let Node { start, end, key, depth } = node;
        if (from <= start && end <= to) || depth == MAX_DEPTH {
            match sum {
                None => *sum = Some(values.to_vec()),
                Some(sum) => sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value),
            }
            return;
        }
        let middle = rounded(0.5 * (end + start));
        let (before, after, share) = (middle - start, end - middle, 1.0 / (end - start));
        let [seed, ..] = seed_state(self.seed, Some((key, depth)));
        let deviation = (before * after * share).sqrt() as f32;
        let (before, share) = (before as f32, share as f32);
        let noise = drawn(self.kind, seed, values.len());
        let left: Vec<f32> = values
            .iter()
            .zip(noise)
            .map(|(value, noise)| before * value * share + deviation * noise)
            .collect();
        if from < middle {
            let node = Node { start, end: middle, key: 2 * key, depth: depth + 1 };
            self.add(node, &left, (from, to), sum);
        }
        if to > middle {
            let right: Vec<f32> = values.iter().zip(&left).map(|(value, left)| value - left).collect();
            let node = Node { start: middle, end, key: 2 * key + 1, depth: depth + 1 };
            self.add(node, &right, (from, to), sum);
        }
    }
}

/// One draw of a fresh generator.
fn drawn(kind: NoiseKind, seed: u32, values: usize) -> Vec<f32> {
    let mut drawn = vec![0.0; values];
    kind.source(u64::from(seed)).fill_normal(&mut drawn);
    drawn
}

/// To six decimals, as Python's `round` does: the nearest of the exact value, ties to even.
fn rounded(value: f64) -> f64 {
    format!("{value:.6}").parse().unwrap_or(value)
}

/// The first words of numpy's `SeedSequence(entropy, spawn_key=spawn, pool_size=24).generate_state(4)`.
fn seed_state(entropy: u64, spawn: Option<(u64, u32)>) -> [u32; 4] {
    let mut words = little_words(entropy);
    if let Some((key, depth)) = spawn {
        words.resize(POOL, 0);
        words.extend(little_words(key));
        words.extend(little_words(u64::from(depth)));
    }
    let pool = mixed(&words);
    let mut constant = 0x8b51_f9dd_u32;
    std::array::from_fn(|index| hashed(pool[index], &mut constant, 0x58f3_8ded))
}

/// As few 32-bit words as hold the number, the lowest first, at least one.
fn little_words(number: u64) -> Vec<u32> {
    let (low, high) = (number as u32, (number >> 32) as u32);
    if high == 0 { vec![low] } else { vec![low, high] }
}

/// Spreads every word over the whole pool.
fn mixed(words: &[u32]) -> [u32; POOL] {
    let mut constant = 0x43b0_d7e5_u32;
    let mut hash = |word: u32| hashed(word, &mut constant, 0x931e_8875);
    let mut pool = [0; POOL];
    for (index, place) in pool.iter_mut().enumerate() {
        *place = hash(words.get(index).copied().unwrap_or(0));
    }
    for from in 0..POOL {
        for to in (0..POOL).filter(|to| *to != from) {
            pool[to] = mix(pool[to], hash(pool[from]));
        }
    }
    for word in words.iter().skip(POOL) {
        for place in &mut pool {
            *place = mix(*place, hash(*word));
        }
    }
    pool
}

fn hashed(word: u32, constant: &mut u32, multiplier: u32) -> u32 {
    let word = word ^ *constant;
    *constant = constant.wrapping_mul(multiplier);
    let word = word.wrapping_mul(*constant);
    word ^ word >> 16
}

fn mix(a: u32, b: u32) -> u32 {
    let mixed = a.wrapping_mul(0xca01_f9dd).wrapping_sub(b.wrapping_mul(0x4973_f715));
    mixed ^ mixed >> 16
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn fixture() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/brownian/brownian.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn seeds_are_hashed_as_numpy_does_it() {
        let fixture = fixture();
        let rows = fixture["seeds"].as_array().unwrap();
        assert!(rows.len() > 5);
        for row in rows {
            let entropy = row["entropy"].as_str().unwrap().parse().unwrap();
            let spawn = row["spawn_key"].as_array().filter(|key| !key.is_empty());
            let spawn = spawn.map(|key| (key[0].as_u64().unwrap(), key[1].as_u64().unwrap() as u32));
            let state: Vec<u64> = seed_state(entropy, spawn).map(u64::from).to_vec();
            assert_eq!(row["state"], serde_json::json!(state), "{row}");
        }
    }

    #[test]
    fn increments_are_those_of_torchsde() {
        let fixture = fixture();
        let rows = fixture["increments"].as_array().unwrap();
        assert!(rows.len() > 10);
        for row in rows {
            let number = |field: &str| row[field].as_f64().unwrap() as f32;
            let seed = row["entropy"].as_str().unwrap().parse().unwrap();
            let wanted: Vec<f64> =
                row["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            let tree =
                BrownianTree::new(NoiseKind::TorchCpu, seed, (number("t0"), number("t1")), wanted.len());
            let found = tree.increment(number("from"), number("to"));
            // A small increment is the difference of large ones.
            let limit = 1e-6 * f64::from(number("t1") - number("t0")).sqrt();
            for (found, wanted) in found.iter().zip(&wanted) {
                assert!((f64::from(*found) - wanted).abs() <= limit, "{found}, not {wanted}: {row}");
            }
        }
    }

    /// Over any division of an interval the increments add up, and beyond its ends a path does not go.
    #[test]
    fn increments_add_up() {
        let tree = BrownianTree::new(NoiseKind::TorchCpu, 7, (0.03, 14.6), 32);
        let places = [0.0, 0.03, 0.030_001, 0.2, 1.0, 7.315, 14.6, 20.0];
        let mut sum = [0f32; 32];
        for pair in places.windows(2) {
            sum.iter_mut().zip(tree.increment(pair[0], pair[1])).for_each(|(sum, value)| *sum += value);
        }
        for (sum, whole) in sum.iter().zip(tree.increment(0.03, 14.6)) {
            assert!((sum - whole).abs() < 1e-4, "{sum}, not {whole}");
        }
        assert_eq!(tree.increment(14.6, 20.0), vec![0.0; 32]);
    }
}
