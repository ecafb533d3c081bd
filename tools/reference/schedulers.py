"""Scheduler tables (timesteps, sigmas, alphas) and trajectories with a closed-form model."""

import torch
from diffusers import DDIMScheduler

import samplers
from common import f32, made_by, seeded, write_json

STEPS = (1, 2, 7, 20, 50)
NOISE_SEED = 1234

ABOUT = [
    "tables: for each (config, sampler, schedule, timestep_spacing, steps) what scheduler.set_timesteps(steps) gives. "
    "config names the scheduler_config.json under `configs`; kwargs are what a user passes to "
    "X.from_config(pipe.scheduler.config, **kwargs); timestep_spacing 'default' means that kwargs has none, and "
    "resolved_spacing is what came out.",
    "timesteps are what the UNet receives. euler with linspace keeps fractions (f32), the others are whole numbers.",
    "sigmas is null where the class has none (ddim). init_noise_sigma multiplies the first latents.",
    "first_step_index is the index that the first step() uses in sigmas: 0 unless the first timestep occurs twice, "
    "where diffusers begins at the second occurrence.",
    "ddim and euler_a have neither karras nor exponential in diffusers. prediction_type changes no table (asserted).",
    "trajectories: x = initial * init_noise_sigma; for each t: m = scale_model_input(x, t); "
    "out = 0.3 * tanh(0.5 * m + t / 1000), all in f32; x = step(out, t, x). prediction_type says how out is read. "
    "final is x after the last step; per_step (7 steps, epsilon) is x after each step, flat, row-major.",
    "Ancestral noise and the noise of ddim with eta > 0 come from one torch.Generator('cpu') with noise_seed, "
    "randn of the latent's shape (1, 4, 4, 4) once per step, the last step included (euler_a multiplies it by 0).",
]


def table(config, sampler, schedule, spacing, steps, **more):
    kwargs = samplers.overrides(schedule, None if spacing == "default" else spacing, **more)
    base = samplers.base(config)
    row = {"config": config, "sampler": sampler, "schedule": schedule, "timestep_spacing": spacing, "steps": steps,
           "kwargs": kwargs}
    scheduler = samplers.make(sampler, base.config, kwargs)
    scheduler.set_timesteps(steps)
    for prediction in ("epsilon", "v_prediction"):
        other = samplers.make(sampler, base.config, {**kwargs, "prediction_type": prediction})
        other.set_timesteps(steps)
        assert torch.equal(other.timesteps, scheduler.timesteps) and same_sigmas(other, scheduler)
    row["resolved_spacing"] = scheduler.config.timestep_spacing
    row["timesteps"] = f32(scheduler.timesteps)
    row["timesteps_dtype"] = str(scheduler.timesteps.dtype).removeprefix("torch.")
    row["init_noise_sigma"] = f32(float(scheduler.init_noise_sigma))
    if isinstance(scheduler, DDIMScheduler):
        return {**row, "sigmas": None, "final_alpha_cumprod": f32(scheduler.final_alpha_cumprod)}
    scheduler._init_step_index(scheduler.timesteps[0])
    return {**row, "first_step_index": int(scheduler.step_index), "sigmas": f32(scheduler.sigmas)}


def same_sigmas(a, b):
    return isinstance(a, DDIMScheduler) or torch.equal(a.sigmas, b.sigmas)


def supported():
    return [(s, k) for s in samplers.CLASSES for k in samplers.SCHEDULES if samplers.supports(s, k)]


def tables():
    rows = [table("sd15", s, k, spacing, steps)
            for s, k in supported() for spacing in samplers.SPACINGS for steps in STEPS]
    rows += [table(config, s, k, "default", steps)
             for config in ("sd15", "sd21", "sdxl") for s, k in supported() for steps in (2, 7, 20)]
    rows += [table("linear", s, k, spacing, steps)
             for s, k in supported() for spacing in samplers.SPACINGS for steps in (7, 20)]
    rows += [table("sd15", s, k, "leading", 7, steps_offset=0) for s, k in supported()]
    rows += [table("sd15", "ddim", "normal", spacing, 7, set_alpha_to_one=True) for spacing in samplers.SPACINGS]
    rows += [table("sd15", s, k, "linspace", 7, final_sigmas_type="sigma_min")
             for s, k in supported() if s not in ("ddim", "euler_a")]
    rows += [table("sd15", s, "normal", "trailing", steps, rescale_betas_zero_snr=True)
             for s in samplers.CLASSES for steps in (7, 20)]
    return rows


def alphas():
    """The beta schedules, whole. alphas_cumprod is an f32 running product in torch."""
    rows = {}
    for name, config, more in (("scaled_linear", "sd15", {}), ("linear", "linear", {}),
                               ("scaled_linear_zero_snr", "sd15", {"rescale_betas_zero_snr": True})):
        scheduler = samplers.make("ddim", samplers.base(config).config, more)
        rows[name] = {"config": config, "class": "DDIMScheduler", "kwargs": more, "betas": f32(scheduler.betas),
                      "alphas_cumprod": f32(scheduler.alphas_cumprod)}
    zero = samplers.make("euler", samplers.base("sd15").config, {"rescale_betas_zero_snr": True})
    rows["scaled_linear_zero_snr"]["note"] = (
        "the sigma-based classes replace the last alphas_cumprod (0 in ddim) by 2**-24 = "
        f"{f32(zero.alphas_cumprod[-1])}")
    return rows


def model(x, t):
    return 0.3 * torch.tanh(0.5 * x + torch.as_tensor(t, dtype=torch.float32) / 1000)


def trajectory(sampler, schedule, spacing, steps, prediction, eta=0.0, **more):
    kwargs = samplers.overrides(schedule, spacing, prediction_type=prediction, **more)
    scheduler = samplers.make(sampler, samplers.base("sd15").config, kwargs)
    scheduler.set_timesteps(steps)
    extra = {"eta": eta} if sampler == "ddim" else {}
    if sampler in ("ddim", "euler", "euler_a"):
        extra["generator"] = torch.Generator("cpu").manual_seed(NOISE_SEED)
    x = initial() * scheduler.init_noise_sigma
    path = []
    for t in scheduler.timesteps:
        x = scheduler.step(model(scheduler.scale_model_input(x, t), t), t, x, **extra, return_dict=False)[0]
        path.append(x)
    assert x.dtype == torch.float32
    row = {"config": "sd15", "sampler": sampler, "schedule": schedule, "timestep_spacing": spacing, "steps": steps,
           "prediction_type": prediction, "eta": eta if sampler == "ddim" else None,
           "noise_seed": NOISE_SEED if sampler == "euler_a" or eta > 0 else None, "kwargs": kwargs,
           "class": type(scheduler).__name__, "final": f32(x.flatten())}
    if steps == 7 and prediction == "epsilon":
        row["per_step"] = [f32(step.flatten()) for step in path]
    return row


def initial():
    return seeded(0, 1, 4, 4, 4)


def trajectories():
    rows = [trajectory(s, k, spacing, steps, prediction)
            for s, k in supported() if k != "exponential" for spacing in samplers.SPACINGS
            for steps in (2, 7, 20, 50) for prediction in ("epsilon", "v_prediction")]
    rows += [trajectory("ddim", "normal", spacing, steps, "epsilon", eta=1.0)
             for spacing in samplers.SPACINGS for steps in (2, 7, 20, 50)]
    rows += [trajectory(s, "exponential", "linspace", 7, "epsilon") for s in ("euler", "dpmpp_2m", "unipc")]
    rows += [trajectory(s, "normal", "linspace", 1, "epsilon") for s in samplers.CLASSES]
    rows += [trajectory(s, "normal", "trailing", 7, "v_prediction", rescale_betas_zero_snr=True)
             for s in samplers.CLASSES]
    return rows


def build(output):
    defaults = {f"{config}/{s}": samplers.config_of(samplers.make(s, samplers.base(config).config, {}))
                for config in ("sd15", "sd21", "sdxl") for s in samplers.CLASSES}
    write_json(output / "schedulers.json", {
        "made_by": made_by("schedulers.py"),
        "about": ABOUT,
        "classes": {name: cls.__name__ for name, cls in samplers.CLASSES.items()},
        "configs": samplers.CONFIGS,
        "resolved_configs": defaults,
        "alphas": alphas(),
        "tables": tables(),
        "initial": {"shape": [1, 4, 4, 4], "seed": 0, "values": f32(initial().flatten())},
        "trajectories": trajectories(),
    })
