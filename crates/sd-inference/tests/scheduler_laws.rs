//! What holds for every sampler, schedule, spacing and number of steps, with or without a reference.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which clippy does not know for tests")]

use candle_core::{Device, Tensor};
use proptest::prelude::*;
use sd_inference::rng::{NoiseKind, NoiseSource};
use sd_inference::schedulers::{
    Sampler, Schedule, Scheduler, SchedulerConfig, SchedulerError, SchedulerOptions, TimestepSpacing,
};

fn config() -> SchedulerConfig {
    let text = r#"{"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "clip_sample": false, "set_alpha_to_one": false, "steps_offset": 1}"#;
    SchedulerConfig::from_json(text).unwrap()
}

fn options(sampler: Sampler, schedule: Schedule, spacing: TimestepSpacing, steps: usize) -> SchedulerOptions {
    SchedulerOptions {
        sampler: Some(sampler),
        schedule: Some(schedule),
        spacing: Some(spacing),
        steps,
        eta: None,
    }
}

fn every_kind() -> impl Iterator<Item = (Sampler, Schedule, TimestepSpacing)> {
    Sampler::ALL.iter().flat_map(|sampler| {
        Schedule::ALL
            .iter()
            .flat_map(|schedule| TimestepSpacing::ALL.iter().map(|spacing| (*sampler, *schedule, *spacing)))
    })
}

/// How often the UNet is asked in so many steps.
fn evaluations(sampler: Sampler, steps: usize) -> usize {
    match sampler.evaluations() {
        1 if sampler == Sampler::Pndm && steps > 1 => steps + 1,
        1 => steps,
        each => each * steps - 1,
    }
}

/// Something that depends on its input and on time.
fn model(input: &Tensor, timestep: f64) -> candle_core::Result<Tensor> {
    input.affine(0.3, timestep / 2000.0)?.tanh()
}

fn advance(
    scheduler: &mut dyn Scheduler,
    step: usize,
    sample: &Tensor,
    noise: &mut dyn NoiseSource,
) -> Tensor {
    let input = scheduler.scale_model_input(sample, step).unwrap();
    let output = model(&input, scheduler.timesteps()[step]).unwrap();
    scheduler.step(&output, step, sample, noise).unwrap()
}

fn first_sample(scheduler: &dyn Scheduler, noise: &mut dyn NoiseSource) -> Tensor {
    (noise.randn(&[1, 4, 4, 4], &Device::Cpu).unwrap() * scheduler.init_noise_sigma()).unwrap()
}

fn values(sample: &Tensor) -> Vec<f32> {
    sample.flatten_all().unwrap().to_vec1().unwrap()
}

fn run(options: &SchedulerOptions, seed: u64) -> Vec<f32> {
    let mut scheduler = config().start(options).unwrap();
    let mut noise = NoiseKind::TorchCpu.source(seed);
    let mut sample = first_sample(&*scheduler, &mut noise);
    for step in 0..scheduler.steps() {
        sample = advance(&mut *scheduler, step, &sample, &mut noise);
    }
    values(&sample)
}

#[test]
fn tables_are_complete_finite_and_falling_for_every_number_of_steps() {
    for (sampler, schedule, spacing) in every_kind() {
        for steps in 1..=150 {
            let scheduler = config().start(&options(sampler, schedule, spacing, steps)).unwrap();
            let what = format!("{sampler} {schedule} {spacing} {steps}");
            let (timesteps, sigmas) = (scheduler.timesteps(), scheduler.sigmas());
            let count = evaluations(sampler, steps);
            assert_eq!(
                (timesteps.len(), sigmas.len(), scheduler.steps()),
                (count, count + 1, count),
                "{what}"
            );
            assert!(timesteps.iter().all(|t| (0.0..=999.0).contains(t)), "{what}: {timesteps:?}");
            assert!(sigmas.iter().all(|sigma| sigma.is_finite() && *sigma >= 0.0), "{what}: {sigmas:?}");
            assert!(sigmas[count] <= sigmas[count - 1], "{what}: {sigmas:?}");
            // What is asked twice may be asked at one level. That of an ancestral step is a small difference of squares,
            // and its timestep is found from it.
            let (rise, ratio) = if count > steps { (1.0, 1.01) } else { (0.0, 1.0) };
            assert!(timesteps.windows(2).all(|pair| pair[1] <= pair[0] + rise), "{what}: {timesteps:?}");
            let falls = |pair: &[f32]| pair[1] < pair[0] || ratio > 1.0 && pair[1] <= pair[0] * ratio;
            assert!(sigmas[..count].windows(2).all(falls), "{what}: {sigmas:?}");
        }
    }
}

/// A UNet that answers with exactly the noise that is in the sample leads every sampler back to the clean sample, or
/// to as much of that noise as the sampler ends with.
#[test]
fn a_perfect_model_leads_to_the_clean_sample() {
    let clean = Tensor::new(&[[[[0.5f32, -0.8], [0.1, 0.9]]]], &Device::Cpu).unwrap();
    let noise = Tensor::new(&[[[[-1.1f32, 0.4], [2.0, -0.3]]]], &Device::Cpu).unwrap();
    for (sampler, schedule, spacing) in every_kind() {
        if sampler.draws_noise() && !(sampler == Sampler::Ddim || sampler == Sampler::Tcd) {
            continue; // fresh noise is not the noise that the model knows of
        }
        let mut config = config();
        config.set_alpha_to_one = Some(true);
        let mut scheduler = config.start(&options(sampler, schedule, spacing, 9)).unwrap();
        let mut source = NoiseKind::TorchCpu.source(0);
        let mut sample = scheduler.add_noise(&clean, &noise, 0).unwrap();
        for step in 0..scheduler.steps() {
            sample = scheduler.step(&noise, step, &sample, &mut source).unwrap();
        }
        // these move by train / steps timesteps, which only leading spacing does too
        let strides = matches!(sampler, Sampler::Ddim | Sampler::Pndm) && schedule == Schedule::Normal;
        if strides && spacing != TimestepSpacing::Leading {
            continue;
        }
        let last = f64::from(*scheduler.sigmas().last().unwrap());
        let signal = 1.0 / (last * last + 1.0).sqrt();
        let end = ((&clean * signal).unwrap() + (&noise * (last * signal)).unwrap()).unwrap();
        for (own, wanted) in values(&sample).iter().zip(values(&end)) {
            assert!((own - wanted).abs() < 2e-4, "{sampler} {schedule} {spacing}: {own}, not {wanted}");
        }
    }
}

#[test]
fn noise_is_drawn_only_by_those_who_want_it() {
    struct Counting(usize);
    impl NoiseSource for Counting {
        fn fill_normal(&mut self, out: &mut [f32]) {
            self.0 += 1;
            out.fill(0.5);
        }
    }
    let draws = |sampler, eta| {
        let options =
            SchedulerOptions { eta, ..options(sampler, Schedule::Normal, TimestepSpacing::Leading, 6) };
        let mut scheduler = config().start(&options).unwrap();
        let mut noise = Counting(0);
        let mut sample = Tensor::ones((1, 4, 4, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
        for step in 0..scheduler.steps() {
            sample = advance(&mut *scheduler, step, &sample, &mut noise);
        }
        noise.0
    };
    for sampler in Sampler::ALL {
        let unasked = match sampler {
            Sampler::EulerA | Sampler::Ddpm | Sampler::Dpmpp2mSde => 6,
            Sampler::Dpm2A | Sampler::Dpmpp2sA | Sampler::Dpmpp3mSde | Sampler::Lcm => 5,
            Sampler::DpmppSde => 10,
            _ => 0,
        };
        assert_eq!(draws(*sampler, None), unasked, "{sampler}");
        assert!(sampler.draws_noise() || unasked == 0, "{sampler}");
    }
    for (sampler, eta, wanted) in [
        (Sampler::Ddim, 0.3, 6),
        (Sampler::Ddim, 0.0, 0),
        (Sampler::Tcd, 0.3, 5),
        (Sampler::Tcd, 0.0, 0),
        (Sampler::Dpmpp3mSde, 0.0, 0),
    ] {
        assert_eq!(draws(sampler, Some(eta)), wanted, "{sampler} {eta}");
    }
}

#[test]
fn a_run_may_begin_late_but_not_skip_or_repeat() {
    for sampler in Sampler::ALL {
        let options = options(*sampler, Schedule::Karras, TimestepSpacing::Linspace, 8);
        let mut scheduler = config().start(&options).unwrap();
        let mut noise = NoiseKind::TorchCpu.source(1);
        let clean = Tensor::zeros((1, 4, 4, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
        let fresh = noise.randn(&[1, 4, 4, 4], &Device::Cpu).unwrap();
        let begin = scheduler.step_after(5);
        assert_eq!(begin, 5 * sampler.evaluations());
        let mut sample = scheduler.add_noise(&clean, &fresh, begin).unwrap();
        for step in begin..scheduler.steps() {
            sample = advance(&mut *scheduler, step, &sample, &mut noise);
            for wrong in [step, step + 2, 100] {
                let error = scheduler.step(&fresh, wrong, &sample, &mut noise).unwrap_err();
                assert!(matches!(error, SchedulerError::StepOrder { .. }), "{sampler}: {error}");
            }
        }
        assert!(values(&sample).iter().all(|value| value.is_finite()), "{sampler}");
    }
}

#[test]
fn bad_input_is_named_before_the_first_step() {
    let refused = |options: &SchedulerOptions| match config().start(options) {
        Ok(_) => panic!("{options:?} was taken"),
        Err(error) => error.to_string(),
    };
    assert_eq!(refused(&SchedulerOptions::new(0)), "steps is 0, but pndm takes 1 to 1000 for this model");
    assert_eq!(
        refused(&options(Sampler::UniPc, Schedule::Normal, TimestepSpacing::Linspace, 1000)),
        "steps is 1000, but unipc takes 1 to 999 for this model"
    );
    for eta in [f64::NAN, -0.1, 1.5, f64::INFINITY] {
        let ddim = options(Sampler::Ddim, Schedule::Normal, TimestepSpacing::Leading, 4);
        let message = refused(&SchedulerOptions { eta: Some(eta), ..ddim });
        assert_eq!(message, format!("eta is {eta}, but must be 0 to 1"));
    }
    for sampler in Sampler::ALL.iter().filter(|sampler| !sampler.takes_eta()) {
        let options = options(*sampler, Schedule::Normal, TimestepSpacing::Leading, 4);
        let message = refused(&SchedulerOptions { eta: Some(0.5), ..options });
        assert!(message.starts_with(&format!("eta was given, but {sampler} takes none")), "{message}");
    }
}

#[test]
fn a_configuration_that_means_something_else_is_refused() {
    for (field, value) in [
        ("beta_schedule", r#""sigmoid""#),
        ("prediction_type", r#""flow_prediction""#),
        ("timestep_spacing", r#""even""#),
        ("num_train_timesteps", "0"),
        ("num_train_timesteps", "1000000000"),
        ("solver_order", "9"),
        ("solver_type", r#""rk45""#),
        ("algorithm_type", r#""dpmsolver""#),
        ("use_lu_lambdas", "true"),
        ("use_beta_sigmas", r#"true, "use_karras_sigmas": true"#),
        ("use_flow_sigmas", "true"),
        ("variance_type", r#""learned_range""#),
        ("trained_betas", "[0.1, 2.0]"),
        ("sigma_min", "-1"),
        ("steps_offset", "18446744073709551615"),
    ] {
        let text = format!(r#"{{"_class_name": "DPMSolverMultistepScheduler", "{field}": {value}}}"#);
        let config = SchedulerConfig::from_json(&text).unwrap();
        let error =
            config.start(&SchedulerOptions::new(1)).err().unwrap_or_else(|| panic!("{text} was taken"));
        assert!(error.to_string().contains(field), "{error}");
    }
    assert!(SchedulerConfig::from_json("[1, 2]").is_err());
    assert!(SchedulerConfig::from_json(r#"{"beta_start": "small"}"#).is_err());
}

/// Every order and variant of the multistep solvers stays finite to the end, where the level is zero.
#[test]
fn solver_variants_stay_finite() {
    for (class, field, variants) in [
        ("DPMSolverMultistepScheduler", "algorithm_type", ["dpmsolver++", "sde-dpmsolver++"]),
        ("DPMSolverMultistepScheduler", "solver_type", ["midpoint", "heun"]),
        ("UniPCMultistepScheduler", "solver_type", ["bh1", "bh2"]),
    ] {
        for variant in variants {
            for order in [1, 2, 3] {
                for lower_order_final in [true, false] {
                    let text = format!(
                        r#"{{"_class_name": "{class}", "{field}": "{variant}", "solver_order": {order},
                            "lower_order_final": {lower_order_final}, "beta_schedule": "scaled_linear"}}"#
                    );
                    let config = SchedulerConfig::from_json(&text).unwrap();
                    let mut scheduler = match config.start(&SchedulerOptions::new(20)) {
                        Ok(scheduler) => scheduler,
                        Err(_) if variant == "sde-dpmsolver++" && order == 3 => continue,
                        Err(error) => panic!("{text}: {error}"),
                    };
                    let mut noise = NoiseKind::TorchCpu.source(5);
                    let mut sample = first_sample(&*scheduler, &mut noise);
                    for step in 0..20 {
                        sample = advance(&mut *scheduler, step, &sample, &mut noise);
                    }
                    assert!(values(&sample).iter().all(|v| v.is_finite()), "{text}");
                }
            }
        }
    }
}

/// Zero terminal SNR: the first level has no signal at all, or as good as none.
#[test]
fn runs_that_begin_without_signal_stay_finite() {
    for (sampler, schedule, _) in every_kind() {
        for prediction in ["epsilon", "v_prediction"] {
            let mut config = config();
            config.rescale_betas_zero_snr = Some(true);
            config.prediction_type = Some(prediction.to_owned());
            for steps in [1, 2, 5, 20] {
                let options = options(sampler, schedule, TimestepSpacing::Trailing, steps);
                let mut scheduler = config.start(&options).unwrap();
                let mut noise = NoiseKind::TorchCpu.source(3);
                let mut sample = first_sample(&*scheduler, &mut noise);
                for step in 0..scheduler.steps() {
                    sample = advance(&mut *scheduler, step, &sample, &mut noise);
                }
                let what = format!("{sampler} {schedule} {prediction} {steps}");
                assert!(values(&sample).iter().all(|value| value.is_finite()), "{what}");
            }
        }
    }
}

fn any_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    prop::sample::select(all)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn runs_stay_finite(
        sampler in any_of(Sampler::ALL),
        schedule in any_of(Schedule::ALL),
        spacing in any_of(TimestepSpacing::ALL),
        steps in 1usize..=60,
        seed: u64,
    ) {
        let end = run(&options(sampler, schedule, spacing, steps), seed);
        prop_assert!(end.iter().all(|value| value.is_finite()), "{:?}", end);
    }

    #[test]
    fn two_runs_in_turn_are_as_one_after_the_other(
        samplers in (any_of(Sampler::ALL), any_of(Sampler::ALL)),
        schedule in any_of(Schedule::ALL),
        steps in 2usize..=12,
        seeds: (u64, u64),
    ) {
        let choices = [samplers.0, samplers.1]
            .map(|sampler| options(sampler, schedule, TimestepSpacing::Trailing, steps));
        let alone = [run(&choices[0], seeds.0), run(&choices[1], seeds.1)];
        let mut runs: Vec<_> = choices.iter().zip([seeds.0, seeds.1]).map(|(options, seed)| {
            let scheduler = config().start(options).unwrap();
            let mut noise = NoiseKind::TorchCpu.source(seed);
            let sample = first_sample(&*scheduler, &mut noise);
            (scheduler, noise, sample)
        }).collect();
        for step in 0..=2 * steps {
            for (scheduler, noise, sample) in &mut runs {
                if step < scheduler.steps() {
                    *sample = advance(&mut **scheduler, step, sample, noise);
                }
            }
        }
        for (run, alone) in runs.iter().zip(alone) {
            prop_assert_eq!(values(&run.2), alone);
        }
    }
}
