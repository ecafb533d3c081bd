//! Settings of a `scheduler_config.json` that the fixtures do not vary, against values of diffusers 0.42.1.

use candle_core::{Device, Tensor};
use sd_inference::rng::NoiseKind;
use sd_inference::schedulers::{SchedulerConfig, SchedulerOptions};

/// Class, steps, settings, and the sample after the last step.
///
/// ```python
/// base = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
/// s = getattr(diffusers, name).from_config({**base, **settings})
/// s.set_timesteps(steps)
/// if hasattr(s, "set_begin_index"): s.set_begin_index(0)
/// x = torch.tensor([0.5, -1.0, 0.25, 2.0]).reshape(1, 1, 2, 2) * s.init_noise_sigma
/// extra = {} if name.startswith("UniPC") else {"generator": torch.Generator("cpu").manual_seed(7)}
/// for t in s.timesteps:
///     out = 0.3 * torch.tanh(0.5 * s.scale_model_input(x, t) + t / 1000)
///     x = s.step(out, t, x, **extra).prev_sample
/// ```
type Variant = (&'static str, usize, &'static str, [f32; 4]);

const VARIANTS: &[Variant] = &[
    (
        "DPMSolverMultistepScheduler",
        8,
        r#""solver_order": 3"#,
        [3.5351782, -13.989616, 0.46204826, 24.991432],
    ),
    (
        "DPMSolverMultistepScheduler",
        20,
        r#""solver_order": 3, "lower_order_final": false, "final_sigmas_type": "sigma_min""#,
        [3.5441797, -13.631178, 0.4866057, 24.971197],
    ),
    (
        "DPMSolverMultistepScheduler",
        8,
        r#""solver_type": "heun", "euler_at_final": true, "use_karras_sigmas": true"#,
        [3.5273623, -13.294207, 0.5319915, 24.965054],
    ),
    (
        "DPMSolverMultistepScheduler",
        8,
        r#""algorithm_type": "sde-dpmsolver++""#,
        [12.339577, -16.040823, 10.031487, 21.984537],
    ),
    (
        "DPMSolverMultistepScheduler",
        8,
        r#""algorithm_type": "sde-dpmsolver++", "solver_type": "heun", "use_karras_sigmas": true"#,
        [13.119604, -15.385402, 11.23374, 18.311535],
    ),
    (
        "DPMSolverMultistepScheduler",
        8,
        r#""algorithm_type": "sde-dpmsolver++", "solver_order": 1, "prediction_type": "sample""#,
        [0.18869989, -0.03774567, 0.171365, 0.07122583],
    ),
    (
        "DPMSolverMultistepScheduler",
        12,
        r#""beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1, "prediction_type": "v_prediction""#,
        [0.23943926, -0.9812903, 0.029636998, 1.5735787],
    ),
    (
        "DPMSolverMultistepScheduler",
        12,
        r#""beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": true, "prediction_type": "v_prediction""#,
        [0.24131829, -0.964803, 0.033600334, 1.5480155],
    ),
    (
        "DPMSolverMultistepScheduler",
        8,
        r#""thresholding": true, "sample_max_value": 1.5"#,
        [0.5895469, -0.8779399, 0.16009583, 1.0],
    ),
    (
        "UniPCMultistepScheduler",
        8,
        r#""solver_type": "bh1", "final_sigmas_type": "sigma_min""#,
        [3.5411196, -13.595237, 0.49097425, 24.97313],
    ),
    ("UniPCMultistepScheduler", 12, r#""solver_order": 3"#, [3.535882, -13.634438, 0.48886305, 24.974352]),
    (
        "UniPCMultistepScheduler",
        12,
        r#""solver_order": 3, "solver_type": "bh1", "disable_corrector": [0, 1], "final_sigmas_type": "sigma_min", "use_karras_sigmas": true"#,
        [3.5443475, -13.721505, 0.48837656, 24.97407],
    ),
    (
        "UniPCMultistepScheduler",
        8,
        r#""prediction_type": "sample", "final_sigmas_type": "sigma_min", "use_karras_sigmas": true"#,
        [0.038554914, -0.039452296, 0.025914535, 0.11096884],
    ),
    (
        "UniPCMultistepScheduler",
        150,
        r#""timestep_spacing": "trailing""#,
        [3.5372694, -13.546982, 0.49934807, 24.966986],
    ),
    (
        "EulerDiscreteScheduler",
        8,
        r#""prediction_type": "sample", "timestep_spacing": "trailing""#,
        [0.08535731, -0.015326679, 0.0699738, 0.16204947],
    ),
    (
        "EulerDiscreteScheduler",
        8,
        r#""use_karras_sigmas": true, "sigma_min": 0.1, "sigma_max": 10.0"#,
        [2.503679, -9.610122, 0.38796264, 17.063612],
    ),
    (
        "DDIMScheduler",
        8,
        r#""clip_sample": true, "clip_sample_range": 0.8"#,
        [0.8, -0.5424642, 0.37825364, 0.8],
    ),
    (
        "DDIMScheduler",
        8,
        r#""thresholding": true, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.7"#,
        [0.94024694, -0.7142096, 0.3002253, 1.0],
    ),
    (
        "DDIMScheduler",
        8,
        r#""prediction_type": "sample", "clip_sample": false, "timestep_spacing": "trailing""#,
        [0.08542755, -0.015493101, 0.0700106, 0.16224767],
    ),
];

#[test]
fn settings_mean_what_they_mean_to_the_reference() -> Result<(), Box<dyn std::error::Error>> {
    for (class, steps, settings, wanted) in VARIANTS {
        let schedule =
            if settings.contains("beta_schedule") { "" } else { r#""beta_schedule": "scaled_linear","# };
        let config = SchedulerConfig::from_json(&format!(
            r#"{{"_class_name": "{class}", "beta_start": 0.00085, "beta_end": 0.012, {schedule} {settings}}}"#
        ))?;
        let mut scheduler = config.start(&SchedulerOptions::new(*steps))?;
        let mut noise = NoiseKind::TorchCpu.source(7);
        let initial = Tensor::new(&[[[[0.5f32, -1.0], [0.25, 2.0]]]], &Device::Cpu)?;
        let mut sample = (initial * scheduler.init_noise_sigma())?;
        for step in 0..*steps {
            let time = f64::from(scheduler.timesteps()[step] as f32 / 1000.0);
            let input = scheduler.scale_model_input(&sample, step)?;
            let output = (input.affine(0.5, time)?.tanh()? * 0.3)?;
            sample = scheduler.step(&output, step, &sample, &mut noise)?;
        }
        for (own, wanted) in sample.flatten_all()?.to_vec1::<f32>()?.iter().zip(wanted) {
            let close = (own - wanted).abs() <= 1e-4 * wanted.abs().max(1.0);
            assert!(close, "{class}, {steps} steps, {settings}: {own}, not {wanted}");
        }
    }
    Ok(())
}
