//! Several generations in one forward pass, though each stands at another step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use candle_core::Tensor;
use sd_models::nn::Seamless;
use sd_models::unet::AddedCondition;

use crate::generation::Rows;
use crate::pipeline::Parts;
use crate::{Generation, Result, Step};

/// Advances each generation by one step: those of one model and shape in one forward pass. The answer has one result for
/// each, in the same order, as [`Generation::step`] gives it.
///
/// Generations that ControlNets steer go alone in the steps in which they do.
///
/// Generations join and leave between calls. On the CPU each gets the bytes that it would get alone. If a forward pass of
/// several fails, for want of memory say, each of them takes its step alone.
///
/// ```no_run
/// # use sd_inference::{GenerationRequest, Pipeline};
/// # fn both(pipeline: &Pipeline, first: &GenerationRequest, second: &GenerationRequest) -> sd_inference::Result<()> {
/// let (mut first, mut second) = (pipeline.begin(first)?, pipeline.begin(second)?);
/// loop {
///     let results = sd_inference::advance(&mut [&mut first, &mut second]);
///     let steps = results.into_iter().collect::<sd_inference::Result<Vec<_>>>()?;
///     if steps.iter().all(Option::is_none) {
///         break;
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub fn advance(generations: &mut [&mut Generation]) -> Vec<Result<Option<Step>>> {
    let start = Instant::now();
    let asked: Vec<_> = generations.iter_mut().map(|generation| generation.ask()).collect();
    let answers = answers(generations, &asked);
    let each = generations.iter_mut().zip(asked).zip(answers);
    each.map(|((generation, asked), answers)| match asked? {
        None => Ok(None),
        Some(asked) if answers.len() == asked.len() => generation.advance(answers, start).map(Some),
        Some(_) => generation.step(),
    })
    .collect()
}

/// Rows, and who asked for them: the generation, and which of its parts.
struct Asked<'a> {
    place: (usize, usize),
    rows: &'a Rows,
    shape: Shape,
}

/// What rows must have in common to share a forward pass.
#[derive(PartialEq)]
struct Shape {
    model: usize,
    input: Vec<usize>,
    states: Vec<usize>,
    added: bool,
    seamless: Seamless,
    /// Which rows they are, if ControlNets steer them: those go alone.
    controlled: Option<(usize, usize)>,
}

impl Shape {
    fn of(generation: &Generation, rows: &Rows, place: (usize, usize)) -> Self {
        let without_rows = |tensor: &Tensor| tensor.dims().iter().skip(1).copied().collect();
        Self {
            model: Arc::as_ptr(generation.parts()).addr(),
            input: without_rows(&rows.input),
            states: without_rows(&rows.states),
            added: rows.added.is_some(),
            seamless: rows.seamless,
            controlled: rows.control.as_ref().map(|_| place),
        }
    }
}

/// The UNet's answers for each generation, in the order in which it asked; none where a forward pass failed.
fn answers(generations: &[&mut Generation], asked: &[Result<Option<Vec<Rows>>>]) -> Vec<Vec<Tensor>> {
    let mut waiting: Vec<Asked<'_>> = Vec::new();
    for (index, asked) in asked.iter().enumerate() {
        for (part, rows) in asked.iter().flatten().flatten().enumerate() {
            let place = (index, part);
            waiting.push(Asked { place, rows, shape: Shape::of(generations[index], rows, place) });
        }
    }
    let mut answered = BTreeMap::new();
    while let Some(first) = waiting.pop() {
        let model = generations[first.place.0].parts();
        let mut together: Vec<_> = waiting.extract_if(.., |asked| asked.shape == first.shape).collect();
        together.push(first);
        let rows: Vec<&Rows> = together.iter().map(|asked| asked.rows).collect();
        let outputs = match &rows[..] {
            [only] => only.predict(model).map(|output| vec![output]),
            _ => predict_together(model, &rows),
        };
        answered.extend(together.iter().map(|asked| asked.place).zip(outputs.into_iter().flatten()));
    }
    let mut answers = vec![Vec::new(); generations.len()];
    for ((generation, _), answer) in answered {
        answers[generation].push(answer);
    }
    answers
}

/// The UNet's answers to several, in one forward pass.
fn predict_together(model: &Parts, together: &[&Rows]) -> Result<Vec<Tensor>> {
    let cat = |tensors: Vec<&Tensor>| Tensor::cat(&tensors, 0);
    let added: Vec<&AddedCondition> = together.iter().filter_map(|rows| rows.added.as_ref()).collect();
    let all = Rows {
        input: cat(together.iter().map(|rows| &rows.input).collect())?,
        timesteps: together.iter().flat_map(|rows| rows.timesteps.iter().copied()).collect(),
        states: cat(together.iter().map(|rows| &rows.states).collect())?,
        added: match added.is_empty() {
            true => None,
            false => Some(AddedCondition {
                text_embeds: cat(added.iter().map(|added| &added.text_embeds).collect())?,
                time_ids: added.iter().flat_map(|added| added.time_ids.iter().cloned()).collect(),
            }),
        },
        guidance_scales: together.iter().flat_map(|rows| rows.guidance_scales.iter().copied()).collect(),
        seamless: together.first().map(|rows| rows.seamless).unwrap_or_default(),
        control: None,
    };
    let output = all.predict(model)?;
    let mut from = 0;
    let mut next = |count: usize| {
        from += count;
        output.narrow(0, from - count, count)?.contiguous()
    };
    together.iter().map(|rows| Ok(next(rows.timesteps.len())?)).collect()
}
