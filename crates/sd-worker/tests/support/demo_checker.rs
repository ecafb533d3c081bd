//! Tells what a picture drawn by the demonstration model shows, from pixels
//! alone: ground, and the shape's colour, kind, position and size.
//!
//! The rule is the one of `tools/demo-model/checker.py`, whose README gives it
//! in words; all reference numbers come from `models/demo/eval.json`.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `eval.json` as a whole.
#[derive(Deserialize)]
pub(crate) struct References {
    pub(crate) rule: Rule,
    /// Tones (RGB, 0 to 255) of each colour's lit, plain and shaded parts.
    pub(crate) colours: BTreeMap<String, Vec<[f64; 3]>>,
    pub(crate) grounds: BTreeMap<String, Ground>,
    /// Filled masks of the shapes, `#` inside.
    pub(crate) shapes: BTreeMap<String, Vec<String>>,
    /// For each shape: extents below the first are small, from the second on large.
    pub(crate) sizes: BTreeMap<String, [f64; 2]>,
    pub(crate) prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
pub(crate) struct Rule {
    pub(crate) side: usize,
    pub(crate) frame: usize,
    /// How far a pixel of the interior is from the region's edge.
    pub(crate) reach: usize,
    pub(crate) least_interior: usize,
    pub(crate) mask_cells: usize,
    pub(crate) least_overlap: f64,
    pub(crate) off_centre: f64,
}

#[derive(Deserialize)]
pub(crate) struct Ground {
    pub(crate) mean: [f64; 8],
    pub(crate) spread: [f64; 8],
    pub(crate) tones: Vec<[f64; 3]>,
    /// Colours not looked for on this ground.
    pub(crate) hides: Vec<String>,
}

/// A prompt, and what its picture must show; `None` is left open.
#[derive(Deserialize)]
pub(crate) struct Prompt {
    pub(crate) prompt: String,
    pub(crate) seed: u64,
    pub(crate) shape: String,
    pub(crate) colour: String,
    pub(crate) ground: String,
    pub(crate) position: Option<[i8; 2]>,
    pub(crate) size: Option<String>,
}

/// What a picture shows.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) ground: String,
    pub(crate) colour: Option<String>,
    pub(crate) shape: Option<String>,
    /// -1 left or top, 0 middle, 1 right or bottom.
    pub(crate) position: Option<[i8; 2]>,
    pub(crate) size: Option<String>,
}

/// Which attributes are right; `None` where the prompt leaves it open.
#[derive(Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) ground: bool,
    pub(crate) colour: bool,
    pub(crate) shape: bool,
    pub(crate) position: Option<bool>,
    pub(crate) size: Option<bool>,
}

pub(crate) fn verdict(rgb: &[u8], width: usize, height: usize, want: &Prompt, refs: &References) -> Verdict {
    let seen = look(rgb, width, height, refs);
    Verdict {
        ground: seen.ground == want.ground,
        colour: seen.colour.as_ref() == Some(&want.colour),
        shape: seen.shape.as_ref() == Some(&want.shape),
        position: want.position.map(|p| seen.position == Some(p)),
        size: want.size.as_ref().map(|s| seen.size.as_ref() == Some(s)),
    }
}

pub(crate) fn look(rgb: &[u8], width: usize, height: usize, refs: &References) -> Seen {
    let side = refs.rule.side;
    assert!(width == side && height == side, "the checker is made for {side}x{side} pictures");
    assert_eq!(rgb.len(), side * side * 3);
    let picture: Vec<[f64; 3]> =
        rgb.chunks_exact(3).map(|p| [f64::from(p[0]), f64::from(p[1]), f64::from(p[2])]).collect();

    let ground = name_ground(&frame_features(&picture, side, refs.rule.frame), refs);
    let labels = label_pixels(&picture, refs, &ground);
    let mut seen = Seen { ground, ..Seen::default() };
    let Some((colour, area)) = main_region(&labels, side, &refs.rule) else {
        return seen;
    };
    seen.colour = refs_colour(refs, &seen.ground, colour);

    let (mut top, mut left, mut bottom, mut right) = (side, side, 0, 0);
    for at in area.iter().enumerate().filter_map(|(at, own)| own.then_some(at)) {
        (top, bottom) = (top.min(at / side), bottom.max(at / side));
        (left, right) = (left.min(at % side), right.max(at % side));
    }
    let mask = small_mask(&area, side, [top, left, bottom, right], refs.rule.mask_cells);
    let mut best: Option<(&str, f64)> = None;
    for (name, rows) in &refs.shapes {
        let overlap = overlap(&mask, rows);
        if best.is_none_or(|(_, most)| overlap > most) {
            best = Some((name, overlap));
        }
    }
    let (shape, overlap) = best.expect("eval.json names shapes");
    seen.shape = (overlap >= refs.rule.least_overlap).then(|| shape.to_owned());

    let place = |low: usize, high: usize| {
        let off = (low + high + 1) as f64 / 2.0 - side as f64 / 2.0;
        if off.abs() <= refs.rule.off_centre { 0 } else { off.signum() as i8 }
    };
    seen.position = Some([place(left, right), place(top, bottom)]);
    let extent = (right - left + 1 + bottom - top + 1) as f64 / 2.0;
    let [small_below, large_from] = refs.sizes[shape];
    let size = if extent < small_below {
        "small"
    } else if extent < large_from {
        "medium"
    } else {
        "large"
    };
    seen.size = Some(size.to_owned());
    seen
}

/// Mean and spread of each channel over the outer frame, and the mean step of
/// grey from pixel to pixel there, to the right and down.
fn frame_features(picture: &[[f64; 3]], side: usize, width: usize) -> [f64; 8] {
    let inner = width..side - width;
    let framed = |y: usize, x: usize| !(inner.contains(&y) && inner.contains(&x));
    let grey = |y: usize, x: usize| picture[y * side + x].iter().sum::<f64>() / 3.0;
    let (mut count, mut sum, mut square) = (0.0, [0.0; 3], [0.0; 3]);
    let (mut steps, mut pairs) = ([0.0; 2], [0.0; 2]);
    for y in 0..side {
        for x in 0..side {
            if !framed(y, x) {
                continue;
            }
            count += 1.0;
            for (c, value) in picture[y * side + x].iter().enumerate() {
                sum[c] += value;
                square[c] += value * value;
            }
            for (k, (b, a)) in [(y, x + 1), (y + 1, x)].into_iter().enumerate() {
                if b < side && a < side && framed(b, a) {
                    steps[k] += (grey(b, a) - grey(y, x)).abs();
                    pairs[k] += 1.0;
                }
            }
        }
    }
    let mut out = [0.0; 8];
    for c in 0..3 {
        out[c] = sum[c] / count;
        out[c + 3] = (square[c] / count - out[c] * out[c]).max(0.0).sqrt();
    }
    out[6] = steps[0] / pairs[0];
    out[7] = steps[1] / pairs[1];
    out
}

/// The ground whose frames look most like this one, each feature measured by
/// how much it varies on that ground.
fn name_ground(features: &[f64; 8], refs: &References) -> String {
    let cost = |g: &Ground| -> f64 {
        (0..8).map(|i| ((features[i] - g.mean[i]) / g.spread[i]).powi(2) + 2.0 * g.spread[i].ln()).sum()
    };
    let nearest = refs.grounds.iter().min_by(|a, b| cost(a.1).total_cmp(&cost(b.1)));
    nearest.expect("eval.json names grounds").0.clone()
}

/// The colours looked for on a ground.
fn visible<'a>(
    refs: &'a References,
    ground: &'a str,
) -> impl Iterator<Item = (&'a String, &'a Vec<[f64; 3]>)> {
    let hides = &refs.grounds[ground].hides;
    refs.colours.iter().filter(move |(name, _)| !hides.contains(name))
}

fn refs_colour(refs: &References, ground: &str, index: usize) -> Option<String> {
    visible(refs, ground).nth(index).map(|(name, _)| name.clone())
}

/// For each pixel the colour with the nearest tone, or `None` if the nearest
/// tone is the ground's.
fn label_pixels(picture: &[[f64; 3]], refs: &References, ground: &str) -> Vec<Option<usize>> {
    let colours = visible(refs, ground).enumerate();
    let mut tones: Vec<(Option<usize>, [f64; 3])> =
        colours.flat_map(|(i, (_, tones))| tones.iter().map(move |t| (Some(i), *t))).collect();
    tones.extend(refs.grounds[ground].tones.iter().map(|t| (None, *t)));
    let far = |p: &[f64; 3], t: &[f64; 3]| (0..3).map(|c| (p[c] - t[c]).powi(2)).sum::<f64>();
    let nearest = |p| tones.iter().min_by(|a, b| far(p, &a.1).total_cmp(&far(p, &b.1)));
    picture.iter().map(|p| nearest(p).and_then(|t| t.0)).collect()
}

/// The connected area of one colour with the most interior pixels, which find it
/// also `reach` pixels up, down, left and right; outlines, being thin, have hardly any.
fn main_region(labels: &[Option<usize>], side: usize, rule: &Rule) -> Option<(usize, Vec<bool>)> {
    let mut done = vec![false; labels.len()];
    let (mut best, mut most) = (None, rule.least_interior.max(1) - 1);
    for from in 0..labels.len() {
        let Some(colour) = labels[from].filter(|_| !done[from]) else {
            continue;
        };
        let mut area = vec![false; labels.len()];
        let mut stack = vec![from];
        (done[from], area[from]) = (true, true);
        while let Some(at) = stack.pop() {
            for next in around(at, side, 1).into_iter().flatten() {
                if !done[next] && labels[next] == Some(colour) {
                    (done[next], area[next]) = (true, true);
                    stack.push(next);
                }
            }
        }
        let within = |at: usize| around(at, side, rule.reach).into_iter().all(|n| n.is_some_and(|n| area[n]));
        let interior = (0..area.len()).filter(|&at| area[at] && within(at)).count();
        if interior > most {
            most = interior;
            best = Some((colour, area));
        }
    }
    best
}

/// The pixels `far` above, below, left and right, where the picture has them.
fn around(at: usize, side: usize, far: usize) -> [Option<usize>; 4] {
    let (y, x) = (at / side, at % side);
    [
        (y >= far).then(|| at - far * side),
        (y + far < side).then(|| at + far * side),
        (x >= far).then(|| at - far),
        (x + far < side).then(|| at + far),
    ]
}

/// The area with its holes filled, its bounding box stretched to `cells` square.
fn small_mask(area: &[bool], side: usize, [top, left, bottom, right]: [usize; 4], cells: usize) -> Vec<bool> {
    let (high, wide) = (bottom - top + 1, right - left + 1);
    // One empty ring around the box, so that a single flood finds all outside.
    let (rows, columns) = (high + 2, wide + 2);
    let mut outside = vec![false; rows * columns];
    let mut stack = vec![0];
    outside[0] = true;
    while let Some(at) = stack.pop() {
        let (y, x) = (at / columns, at % columns);
        let around = [(y.wrapping_sub(1), x), (y + 1, x), (y, x.wrapping_sub(1)), (y, x + 1)];
        for (b, a) in around {
            if b >= rows || a >= columns || outside[b * columns + a] {
                continue;
            }
            let in_box = (1..=high).contains(&b) && (1..=wide).contains(&a);
            if !(in_box && area[(top + b - 1) * side + left + a - 1]) {
                outside[b * columns + a] = true;
                stack.push(b * columns + a);
            }
        }
    }
    let pick = |i: usize, length: usize| ((i as f64 + 0.5) * length as f64 / cells as f64) as usize;
    (0..cells * cells)
        .map(|k| !outside[(1 + pick(k / cells, high)) * columns + 1 + pick(k % cells, wide)])
        .collect()
}

/// Intersection over union of a mask with a reference mask.
fn overlap(mask: &[bool], rows: &[String]) -> f64 {
    let (mut both, mut either) = (0, 0);
    for (&own, mark) in mask.iter().zip(rows.iter().flat_map(|row| row.bytes())) {
        both += usize::from(own && mark == b'#');
        either += usize::from(own || mark == b'#');
    }
    both as f64 / either as f64
}
