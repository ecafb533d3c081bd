//! From what the programs printed to a Markdown table.

use serde_json::Value;

use super::contender::{Contender, Program};
use super::{Case, Turn};

/// The table of one case with what is needed to read it.
///
/// A time is the median of all samples of all rounds. A ratio is taken within each round, whose samples lie close
/// together, against the faster of the other program's settings; shown are the median round and the extremes.
pub(super) fn section(case: &Case, contenders: &[Contender], turns: &[Turn], parts: &[String]) -> String {
    let table = Table { contenders, turns };
    let mut lines = vec![format!("### {case}\n")];
    let steps = table.value(|report| report["picture_steps"].as_f64()).unwrap_or_default();
    let titles = parts.iter().map(|part| match part.as_str() {
        "picture" => format!("picture of {steps} steps"),
        part => part.to_owned(),
    });
    let titles: Vec<String> = titles.chain(["peak memory".to_owned()]).collect();
    lines.push(row("", &titles));
    lines.push(format!("|{}", "---|".repeat(titles.len() + 1)));
    for (index, contender) in contenders.iter().enumerate() {
        let mut cells: Vec<String> = parts.iter().map(|part| table.speed(index, key(part))).collect();
        cells.push(table.memory(index).map_or("-".into(), |megabytes| format!("{megabytes:.0} MB")));
        lines.push(row(&contender.label(), &cells));
    }
    for (ours, rivals) in pairings(contenders) {
        let mut cells: Vec<String> = parts.iter().map(|part| table.ratio(ours, &rivals, key(part))).collect();
        cells.push(table.memory_ratio(ours, &rivals));
        let name = contenders[rivals[0]].program.name();
        lines.push(row(&format!("{} / {name}", contenders[ours].label()), &cells));
    }
    lines.push(String::new());
    lines.push(table.footnote(parts));
    lines.join("\n")
}

/// The name of a part in the reports.
fn key(part: &str) -> &str {
    if part == "text" { "text_encode" } else { part }
}

fn row(head: &str, cells: &[String]) -> String {
    format!("| {head} | {} |", cells.join(" | "))
}

/// Each of our contenders with those of one other program that it is compared with: in the same number format, or in
/// whatever stable-diffusion.cpp has.
fn pairings(contenders: &[Contender]) -> Vec<(usize, Vec<usize>)> {
    let mut pairings = Vec::new();
    for (index, ours) in contenders.iter().enumerate() {
        if ours.program != Program::Worker {
            continue;
        }
        for name in ["torch", "stable-diffusion.cpp"] {
            let is_rival = |rival: &Contender| {
                rival.program.name() == name && (name != "torch" || rival.dtype == ours.dtype)
            };
            let rivals: Vec<usize> = (0..contenders.len()).filter(|&i| is_rival(&contenders[i])).collect();
            if !rivals.is_empty() {
                pairings.push((index, rivals));
            }
        }
    }
    pairings
}

/// What produced a report, such as `torch 2.15.0, diffusers 0.42.1` or `sd-worker kernels: avx512`.
pub(super) fn version(report: &Value) -> String {
    match report["versions"].as_str() {
        Some(versions) => versions.to_owned(),
        None => format!("sd-worker with its {} kernels", report["kernels"].as_str().unwrap_or("unknown")),
    }
}

struct Table<'a> {
    contenders: &'a [Contender],
    turns: &'a [Turn],
}

impl Table<'_> {
    fn turns_of(&self, contender: usize) -> impl Iterator<Item = &Turn> {
        self.turns.iter().filter(move |turn| turn.contender == contender)
    }

    /// The greatest of a number that all turns that have it tell about alike.
    fn value(&self, read: impl Fn(&Value) -> Option<f64>) -> Option<f64> {
        self.turns.iter().filter_map(|turn| read(&turn.report)).reduce(f64::max)
    }

    fn gflop(&self, part: &str) -> Option<f64> {
        self.value(|report| report["parts"][part]["gflop"].as_f64())
    }

    fn peak(&self) -> Option<f64> {
        self.value(|report| report["peak_gflop_per_s"].as_f64())
    }

    fn time(&self, contender: usize, part: &str) -> Option<f64> {
        median(self.turns_of(contender).flat_map(|turn| samples(turn, part)).collect())
    }

    /// Time, rate, and share of the peak.
    fn speed(&self, contender: usize, part: &str) -> String {
        let Some(time) = self.time(contender, part) else { return "-".into() };
        let mut text = if time < 1000.0 { format!("{time:.0} ms") } else { format!("{:.2} s", time / 1e3) };
        if let Some(rate) = self.gflop(part).map(|gflop| gflop / (time / 1e3)) {
            text.push_str(&format!(", {rate:.0} GFLOP/s"));
            if let Some(peak) = self.peak() {
                text.push_str(&format!(" ({:.0} %)", 100.0 * rate / peak));
            }
        }
        text
    }

    /// The most that any turn of this contender needed, in MB.
    fn memory(&self, contender: usize) -> Option<f64> {
        self.turns_of(contender).filter_map(|turn| turn.report["peak_rss_mb"].as_f64()).reduce(f64::max)
    }

    /// Our time over the fastest rival's, with the extremes over the rounds and the rival's setting.
    fn ratio(&self, ours: usize, rivals: &[usize], part: &str) -> String {
        let timed = rivals.iter().filter_map(|&rival| Some((rival, self.time(rival, part)?)));
        let Some((best, _)) = timed.min_by(|a, b| a.1.total_cmp(&b.1)) else { return "-".into() };
        let ratios: Vec<f64> = self
            .turns_of(ours)
            .filter_map(|turn| {
                let rival = self.turns_of(best).find(|other| other.round == turn.round)?;
                Some(median(samples(turn, part))? / median(samples(rival, part))?)
            })
            .collect();
        let (least, most) = extremes(&ratios);
        let Some(middle) = median(ratios) else { return "-".into() };
        let setting = self.contenders[best].setting().map(|name| format!(" of {name}")).unwrap_or_default();
        format!("{middle:.2} ({least:.2} .. {most:.2}){setting}")
    }

    fn memory_ratio(&self, ours: usize, rivals: &[usize]) -> String {
        let least = rivals.iter().filter_map(|&rival| self.memory(rival)).reduce(f64::min);
        match (self.memory(ours), least) {
            (Some(ours), Some(least)) => format!("{:.2}", ours / least),
            _ => "-".into(),
        }
    }

    /// The work, the peak and how quiet the machine was.
    fn footnote(&self, parts: &[String]) -> String {
        let works = parts.iter().filter_map(|part| Some(format!("{part} {:.0}", self.gflop(key(part))?)));
        let works: Vec<String> = works.collect();
        let mut sentences = Vec::new();
        if !works.is_empty() {
            sentences.push(format!("Work in GFLOP: {}.", works.join(", ")));
        }
        if let Some(peak) = self.peak() {
            sentences.push(format!("Peak of these threads in f32: {peak:.0} GFLOP/s."));
        }
        if let Some(others) = self.turns.iter().filter_map(|turn| turn.others).reduce(f64::max) {
            sentences.push(format!(
                "Other programs took at most {:.0} % of the cores during a turn.",
                100.0 * others
            ));
        }
        sentences.join(" ")
    }
}

fn samples(turn: &Turn, part: &str) -> Vec<f64> {
    let samples = turn.report["parts"][part]["samples_ms"].as_array();
    samples.map(|samples| samples.iter().filter_map(Value::as_f64).collect()).unwrap_or_default()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

fn extremes(values: &[f64]) -> (f64, f64) {
    values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), &value| (least.min(value), most.max(value)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::options::Options;
    use super::*;

    fn case() -> Case {
        Case { model: "sd15".into(), size: 512, threads: 2 }
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn all(arguments: &str) -> Vec<Contender> {
        let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
        Contender::all(&Options::parse(&arguments).unwrap())
    }

    fn turn(round: usize, contender: usize, steps: &[f64], memory: f64) -> Turn {
        let mut report = json!({ "parts": { "step": { "samples_ms": steps } }, "peak_rss_mb": memory });
        if contender == 0 {
            report["parts"]["step"]["gflop"] = json!(1600.0);
            report["peak_gflop_per_s"] = json!(320.0);
        }
        Turn { round, contender, report, others: Some(0.01 * round as f64) }
    }

    #[test]
    fn a_table_is_complete() {
        // Round 1 was slow for all: the ratio within it is that of the others.
        let contenders = all("--vs-torch --dtype f32");
        let turns = [
            turn(0, 0, &[8000.0, 8000.0], 5000.0),
            turn(0, 1, &[10000.0, 10000.0], 6000.0),
            turn(0, 2, &[12000.0, 12000.0], 5500.0),
            turn(1, 0, &[16000.0, 16000.0], 5100.0),
            turn(1, 1, &[20000.0, 20000.0], 6000.0),
            turn(1, 2, &[24000.0, 24000.0], 5500.0),
            turn(2, 0, &[8000.0, 8000.0], 5000.0),
            turn(2, 1, &[8000.0, 8000.0], 6000.0),
            turn(2, 2, &[9000.0, 9000.0], 5500.0),
        ];
        assert_eq!(
            section(&case(), &contenders, &turns, &words(&["step", "decode"])),
            "### sd15 at 512x512, 2 threads\n\
             \n\
             |  | step | decode | peak memory |\n\
             |---|---|---|---|\n\
             | sd-worker f32 | 8.00 s, 200 GFLOP/s (62 %) | - | 5100 MB |\n\
             | torch f32 contiguous | 10.00 s, 160 GFLOP/s (50 %) | - | 6000 MB |\n\
             | torch f32 channels_last | 12.00 s, 133 GFLOP/s (42 %) | - | 5500 MB |\n\
             | sd-worker f32 / torch | 0.80 (0.80 .. 1.00) of contiguous | - | 0.93 |\n\
             \n\
             Work in GFLOP: step 1600. Peak of these threads in f32: 320 GFLOP/s. \
             Other programs took at most 2 % of the cores during a turn."
        );
    }

    #[test]
    fn each_number_format_meets_its_own() {
        let contenders = all("--vs-torch");
        let names: Vec<String> = contenders.iter().map(Contender::label).collect();
        assert_eq!(names[..3], ["sd-worker f32", "sd-worker bf16", "torch f32 contiguous"]);
        for (ours, rivals) in pairings(&contenders) {
            assert_eq!(rivals.len(), 2, "both layouts");
            assert!(rivals.iter().all(|&rival| contenders[rival].dtype == contenders[ours].dtype));
        }
        assert!(pairings(&all("--dtype f32")).is_empty());
    }

    #[test]
    fn one_number_format_of_another_program_meets_all_of_ours() {
        let contenders = all("--vs-torch --vs-sdcpp sd-cli");
        let met: Vec<(usize, &str)> = pairings(&contenders)
            .iter()
            .map(|(ours, rivals)| (*ours, contenders[rivals[0]].program.name()))
            .collect();
        assert_eq!(
            met,
            [(0, "torch"), (0, "stable-diffusion.cpp"), (1, "torch"), (1, "stable-diffusion.cpp")]
        );
    }

    #[test]
    fn a_rival_that_failed_leaves_a_gap() {
        let contenders = all("--vs-torch --dtype f32");
        let turns = [turn(0, 0, &[300.0], 50.0), turn(0, 2, &[600.0], 100.0)];
        let text = section(&case(), &contenders, &turns, &words(&["step"]));
        assert!(text.contains("| torch f32 contiguous | - | - |"), "{text}");
        assert!(
            text.contains("| sd-worker f32 / torch | 0.50 (0.50 .. 0.50) of channels_last | 0.50 |"),
            "{text}"
        );
    }
}
