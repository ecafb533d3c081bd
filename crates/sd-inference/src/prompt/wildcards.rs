//! `{red|green|blue}`: one of several, by the seed.

use super::escaped;

/// Chooses one option of each `{a|b|c}`, by `seed` alone: the same prompt and seed give the same text.
///
/// Options may be empty, and hold further choices. Braces without a bar between them, bars without braces and braces
/// without a partner are text. What a backslash makes literal stays as it is written, so that the result means the same
/// when it is resolved again: with any seed it is then itself.
///
/// ```
/// use sd_inference::prompt::resolve_wildcards;
///
/// let prompt = "a {red|green|blue} {circle|square}";
/// assert_eq!(resolve_wildcards(prompt, 7), resolve_wildcards(prompt, 7));
/// assert_eq!(resolve_wildcards("a red circle", 7), "a red circle");
/// ```
pub fn resolve_wildcards(prompt: &str, seed: u64) -> String {
    let mut text = String::with_capacity(prompt.len());
    // The braces that are still open: choices are made when they close, so nothing recurses.
    let mut open: Vec<Choice> = Vec::new();
    let mut choices = 0;
    let mut rest = prompt;
    while let Some(c) = rest.chars().next() {
        let length = match escaped(rest) {
            Some(literal) => 1 + literal.len_utf8(),
            None => c.len_utf8(),
        };
        let (token, behind) = rest.split_at(length);
        rest = behind;
        match token {
            "{" => {
                choices += 1;
                open.push(Choice { number: choices, options: vec![String::new()] });
            }
            "}" if let_closed(&mut open, &mut text, seed) => {}
            "|" if !open.is_empty() => {
                if let Some(choice) = open.last_mut() {
                    choice.options.push(String::new());
                }
            }
            other => place(&mut open, &mut text).push_str(other),
        }
    }
    while let Some(choice) = open.pop() {
        let literal = format!("{{{}", choice.options.join("|"));
        place(&mut open, &mut text).push_str(&literal);
    }
    text
}

/// Braces that are open.
struct Choice {
    /// Counts all opening braces of the prompt from 1: what is chosen elsewhere does not change this choice.
    number: u64,
    /// What was read so far; the last is being read.
    options: Vec<String>,
}

impl Choice {
    /// What it comes to.
    fn made(mut self, seed: u64) -> String {
        let count = self.options.len();
        if count == 1 {
            return format!("{{{}}}", self.options.remove(0));
        }
        // The upper half of the product spreads 64 random bits evenly over the options.
        let chosen = (u128::from(random_bits(seed, self.number)) * count as u128) >> 64;
        self.options.swap_remove(chosen as usize)
    }
}

/// Where text is being written: into the innermost open option, or into the result.
fn place<'a>(open: &'a mut [Choice], text: &'a mut String) -> &'a mut String {
    open.last_mut().and_then(|choice| choice.options.last_mut()).unwrap_or(text)
}

/// Closes the innermost braces; whether there were any.
fn let_closed(open: &mut Vec<Choice>, text: &mut String, seed: u64) -> bool {
    let Some(choice) = open.pop() else { return false };
    let made = choice.made(seed);
    place(open, text).push_str(&made);
    true
}

/// Output `number` of SplitMix64 (Steele, Lea and Flood, 2014) started with `seed`.
fn random_bits(seed: u64, number: u64) -> u64 {
    let z = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn all(prompt: &str) -> BTreeSet<String> {
        (0..200).map(|seed| resolve_wildcards(prompt, seed)).collect()
    }

    /// The first output for the seed 1234567, which the generator's authors and many after them publish.
    #[test]
    fn the_bits_are_those_of_the_published_generator() {
        assert_eq!(random_bits(1_234_567, 1), 6_457_827_717_110_365_317);
        assert_eq!(random_bits(1_234_567, 2), 3_203_168_211_198_807_973);
    }

    #[test]
    fn every_option_is_chosen_by_some_seed_and_nothing_else() {
        let cases: [(&str, &[&str]); 9] = [
            ("a {b|c|d}", &["a b", "a c", "a d"]),
            ("a{ b|}", &["a", "a b"]),
            ("{a|{b|c} d}", &["a", "b d", "c d"]),
            ("{a}", &["{a}"]),
            ("{{a|b}}", &["{a}", "{b}"]),
            ("a|b", &["a|b"]),
            ("}{a|b}{", &["}a{", "}b{"]),
            ("{a|b", &["{a|b"]),
            (r"\{a|b\} {c\|d|e\}}", &[r"\{a|b\} c\|d", r"\{a|b\} e\}"]),
        ];
        for (prompt, expected) in cases {
            let expected: BTreeSet<String> = expected.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(all(prompt), expected, "{prompt}");
        }
    }

    #[test]
    fn options_are_chosen_about_equally_often() {
        let count = (0..3000).filter(|&seed| resolve_wildcards("{a|b|c}", seed) == "a").count();
        assert!((900..1100).contains(&count), "{count} of 3000");
        // And one choice says nothing about the next.
        let count = (0..3000).filter(|&seed| resolve_wildcards("{a|b}{a|b}", seed) == "aa").count();
        assert!((650..850).contains(&count), "{count} of 3000");
    }

    #[test]
    fn deep_nesting_is_no_danger() {
        let deep = format!("{}a|b{}", "{".repeat(5000), "}".repeat(5000));
        assert_eq!(resolve_wildcards(&deep, 1).len(), 4999 + 1 + 4999);
        assert_eq!(resolve_wildcards(&"{".repeat(5000), 1), "{".repeat(5000));
    }

    proptest! {
        #[test]
        fn what_is_resolved_stays_as_it_is(prompt in r"[{}|\\a-c ]{0,40}", seed: u64, other: u64) {
            let resolved = resolve_wildcards(&prompt, seed);
            prop_assert_eq!(&resolve_wildcards(&resolved, other), &resolved);
        }

        #[test]
        fn text_without_braces_is_itself(prompt in r"[^{}]{0,60}", seed: u64) {
            prop_assert_eq!(resolve_wildcards(&prompt, seed), prompt);
        }
    }
}
