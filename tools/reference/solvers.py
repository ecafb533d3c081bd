"""The samplers and schedules that schedulers.json does not hold: solvers.json, one row a line."""

import functools
import importlib.metadata
import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch
from diffusers import (DDPMScheduler, DEISMultistepScheduler, DPMSolverMultistepScheduler, DPMSolverSDEScheduler,
                       HeunDiscreteScheduler, KDPM2AncestralDiscreteScheduler, KDPM2DiscreteScheduler, LCMScheduler,
                       LMSDiscreteScheduler, PNDMScheduler, TCDScheduler)
from diffusers.schedulers.scheduling_utils import AysSchedules

import samplers
from common import f32, made_by, seeded

CLASSES = {
    "pndm": PNDMScheduler, "ddpm": DDPMScheduler, "heun": HeunDiscreteScheduler, "dpm2": KDPM2DiscreteScheduler,
    "dpm2_a": KDPM2AncestralDiscreteScheduler, "lms": LMSDiscreteScheduler,
    "dpmpp_2m_sde": DPMSolverMultistepScheduler, "dpmpp_sde": DPMSolverSDEScheduler, "deis": DEISMultistepScheduler,
    "lcm": LCMScheduler, "tcd": TCDScheduler,
}
OF_K_DIFFUSION = {"dpmpp_2s_a": "sample_dpmpp_2s_ancestral", "dpmpp_3m_sde": "sample_dpmpp_3m_sde"}
WITH_SCHEDULES = ("heun", "dpm2", "dpm2_a", "lms", "dpmpp_2m_sde", "dpmpp_sde", "deis")
WITH_ZERO_SNR = ("ddpm", "dpmpp_2m_sde", "lcm", "tcd")
FIXED = {"dpmpp_2m_sde": {"algorithm_type": "sde-dpmsolver++"}}
FLAGS = {**samplers.SCHEDULES, "beta": {"use_beta_sigmas": True}}
STEPS = (2, 7, 20, 50)
SHAPE = (1, 4, 2, 2)
NOISE_SEED = 1234

ABOUT = [
    "One row a line. config names a scheduler_config.json under `configs` of schedulers.json, kwargs what a user passes "
    "to X.from_config besides; spacing null: none passed.",
    "tables: timesteps are what the UNet receives each time it is asked, levels the noise-to-signal ratio of what it "
    "sees then, and the level after the last step. Only every `every`-th of both is kept, counted from the first. "
    "init_noise_sigma multiplies the first latents.",
    "trajectories: as in schedulers.json, with latents of shape (1, 4, 2, 2). begin null: x = initial * "
    "init_noise_sigma. Else x = add_noise(initial, noise, timesteps[begin]) and the run begins there; noise is drawn "
    "first from the generator with noise_seed that then serves the run.",
    "dpmpp_sde's Brownian tree is replaced by a Brownian path of plain normals: its increment to a lower sigma than any "
    "before is sqrt(distance) times one randn. dpmpp_2s_a and dpmpp_3m_sde are k-diffusion's functions with plain "
    "normals as noise_sampler, on the levels of EulerDiscreteScheduler; their model takes the timestep of that table, "
    "and for levels in between the one of its _sigma_to_t.",
    "schedules simple, ddim_uniform and sgm_uniform are transcribed from ComfyUI's definitions, align_your_steps from "
    "the paper's table 3 with log-linear interpolation; ten of its steps come from diffusers' AysSchedules. "
    "beta is diffusers' use_beta_sigmas.",
]


@functools.cache
def functions_of_k_diffusion():
    """Its sampling.py alone: the package's own imports want a training environment."""
    folder = Path(importlib.util.find_spec("k_diffusion").submodule_search_locations[0])
    package, utils = types.ModuleType("k_diffusion"), types.ModuleType("k_diffusion.utils")
    package.__path__ = [str(folder)]
    utils.append_dims = lambda x, dims: x.reshape(x.shape + (1,) * (dims - x.ndim))
    package.utils = utils
    sys.modules |= {"k_diffusion": package, "k_diffusion.utils": utils}
    spec = importlib.util.spec_from_file_location("k_diffusion.sampling", folder / "sampling.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BrownianPath:
    """Increments of unit variance between sigmas that are asked for from the highest down."""

    def __init__(self, shape, generator):
        self.shape, self.generator, self.known = shape, generator, {}

    def __call__(self, sigma, sigma_next):
        start, end = float(sigma), float(sigma_next)
        if not self.known:
            self.known[start] = torch.zeros(self.shape)
        if end not in self.known:
            lowest = min(self.known)
            fresh = torch.randn(self.shape, generator=self.generator)
            self.known[end] = self.known[lowest] + (lowest - end) ** 0.5 * fresh
        return (self.known[end] - self.known[start]) / (start - end) ** 0.5


def make(sampler, config, schedule="normal", spacing=None, base=None, **more):
    spacing = {} if spacing is None else {"timestep_spacing": spacing}
    kwargs = {**FLAGS[schedule], **spacing, **more}
    cls = samplers.CLASSES["euler"] if sampler in OF_K_DIFFUSION else CLASSES.get(sampler) or samplers.CLASSES[sampler]
    base = samplers.base(config).config if base is None else base
    return cls.from_config(base, **kwargs, **FIXED.get(sampler, {})), kwargs


def levels(sampler, scheduler):
    """The noise-to-signal ratio of what the UNet sees each time, and that at the end."""
    if hasattr(scheduler, "alphas_cumprod") and sampler in ("pndm", "ddpm", "lcm", "tcd"):
        last = {"pndm": getattr(scheduler, "final_alpha_cumprod", None), "tcd": scheduler.alphas_cumprod[0]}
        alphas = torch.stack([*scheduler.alphas_cumprod[scheduler.timesteps.long()],
                              torch.as_tensor(last.get(sampler, 1.0))])
        if alphas[0] == 0:
            alphas[0] = 2**-24
        return ((1 - alphas) / alphas) ** 0.5
    if sampler in ("dpm2", "dpm2_a"):
        own, between = scheduler.sigmas, scheduler.sigmas_interpol
        back = 1 if sampler == "dpm2_a" else 0
        seen = [between[i - back] if i % 2 else own[i] for i in range(len(scheduler.timesteps))]
        return torch.stack([*seen, torch.tensor(0.0)])
    if sampler == "dpmpp_sde":
        own = scheduler.sigmas
        middle = [(own[i - 1].log() + 0.5 * (own[i].log() - own[i - 1].log())).exp() if i % 2 else own[i]
                  for i in range(len(scheduler.timesteps))]
        return torch.stack([*middle, torch.tensor(0.0)])
    return scheduler.sigmas


def table(sampler, config, schedule, spacing, steps, **more):
    scheduler, kwargs = make(sampler, config, schedule, spacing, **more)
    scheduler.set_timesteps(steps)
    seen = levels(sampler, scheduler)
    assert len(seen) == len(scheduler.timesteps) + 1
    every = 1 if steps <= 20 else 8
    return {"sampler": sampler, "config": config, "schedule": schedule, "spacing": spacing, "steps": steps,
            "kwargs": {k: v for k, v in kwargs.items() if k not in FLAGS[schedule] and k != "timestep_spacing"},
            "count": len(scheduler.timesteps), "init_noise_sigma": f32(float(scheduler.init_noise_sigma)),
            "every": every, "timesteps": f32(scheduler.timesteps[::every]), "levels": f32(seen[::every])}


def interpolated(log_sigmas, timestep):
    low = int(np.floor(timestep))
    high = min(low + 1, len(log_sigmas) - 1)
    share = timestep - low
    return float(np.exp((1 - share) * log_sigmas[low] + share * log_sigmas[high]))


ALIGNED = {"sd15": [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029],
           "sdxl": [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029]}


def spread(schedule, config, steps):
    """Timesteps and sigmas of a schedule that no package of the reference has."""
    scheduler, _ = make("euler", config)
    training = np.array(((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod) ** 0.5)
    log_sigmas, train = np.log(training), len(training)
    if schedule == "align_your_steps":
        places, logs = np.linspace(0, 1, 11), np.log(ALIGNED[config][::-1])
        sigmas = np.exp(np.interp(np.linspace(0, 1, steps + 1), places, logs))[::-1][:-1]
        return np.array([scheduler._sigma_to_t(sigma, log_sigmas) for sigma in sigmas]), sigmas
    timesteps = {
        "simple": [train - 1 - int(i * (train / steps)) for i in range(steps)],
        "ddim_uniform": list(range(1, train, max(train // steps, 1)))[:steps][::-1],
        "sgm_uniform": np.linspace(train - 1, 0, steps + 1)[:-1],
    }[schedule]
    return np.array(timesteps, dtype=float), np.array([interpolated(log_sigmas, t) for t in timesteps])


def spread_table(schedule, config, steps):
    timesteps, sigmas = spread(schedule, config, steps)
    if schedule == "align_your_steps" and steps == 10:
        scheduler, _ = make("euler", config)
        name = {"sd15": "StableDiffusionSigmas", "sdxl": "StableDiffusionXLSigmas"}[config]
        scheduler.set_timesteps(sigmas=AysSchedules[name])
        assert np.allclose(scheduler.sigmas[:-1], sigmas, rtol=1e-6)
        timesteps, sigmas = scheduler.timesteps, scheduler.sigmas[:-1]
    every = 1 if steps <= 20 else 8
    seen = np.concatenate([sigmas, [0.0]])
    assert len(seen) == steps + 1
    return {"sampler": "euler", "config": config, "schedule": schedule, "spacing": "linspace", "steps": steps,
            "kwargs": {}, "count": steps, "init_noise_sigma": f32(seen.max()), "every": every,
            "timesteps": f32(timesteps[::every]), "levels": f32(seen[::every])}


def tables():
    rows = [table(s, "sd15", "normal", spacing, steps)
            for s in CLASSES for spacing in samplers.SPACINGS for steps in STEPS
            if spacing == "linspace" or s not in ("lcm", "tcd")]
    rows += [table(s, config, "normal", None, 7) for s in CLASSES for config in ("sd21", "sdxl", "linear")]
    rows += [table(s, "sd15", schedule, "linspace", steps)
             for s in WITH_SCHEDULES for schedule in ("karras", "exponential", "beta") for steps in (2, 7, 20)]
    rows += [table(s, "sd15", "beta", "leading", steps) for s in ("euler", "dpmpp_2m", "unipc") for steps in (7, 20)]
    rows += [table(s, "sd15", "normal", "trailing", 7, rescale_betas_zero_snr=True) for s in WITH_ZERO_SNR]
    rows += [table("dpmpp_2m_sde", "sd15", "normal", "linspace", 7, final_sigmas_type="sigma_min")]
    rows += [spread_table(schedule, "sd15", steps)
             for schedule in ("simple", "ddim_uniform", "sgm_uniform", "align_your_steps")
             for steps in (*STEPS, 10)]
    rows += [spread_table("align_your_steps", "sdxl", steps) for steps in (7, 10)]
    return rows


def model(x, t):
    return 0.3 * torch.tanh(0.5 * x + torch.as_tensor(t, dtype=torch.float32) / 1000)


def initial():
    return seeded(0, *SHAPE)


def run(sampler, scheduler, eta, begin):
    """The sample after the last step."""
    generator = torch.Generator("cpu").manual_seed(NOISE_SEED)
    if begin is None:
        x, timesteps = initial() * scheduler.init_noise_sigma, scheduler.timesteps
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
    else:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        timesteps = scheduler.timesteps[begin:]
        noise = torch.randn(SHAPE, generator=generator)
        x = scheduler.add_noise(initial(), noise, timesteps[:1])
    extra = {} if sampler in ("pndm", "heun", "dpm2", "lms", "dpmpp_sde", "deis") else {"generator": generator}
    if sampler == "tcd":
        extra["eta"] = eta
    if sampler == "dpmpp_sde":
        scheduler.noise_sampler = BrownianPath(SHAPE, generator)
    for t in timesteps:
        out = model(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(out, t, x, **extra, return_dict=False)[0]
    return x


def run_of_k_diffusion(sampler, scheduler, eta):
    generator = torch.Generator("cpu").manual_seed(NOISE_SEED)
    log_sigmas = np.log(np.array(((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod) ** 0.5))
    known = {float(s): float(t) for s, t in zip(scheduler.sigmas, scheduler.timesteps)}

    def denoiser(x, sigma):
        sigma = sigma[0]
        t = known.get(float(sigma))
        if t is None:
            t = float(scheduler._sigma_to_t(np.asarray(float(sigma)), log_sigmas))
        out = model(x / (sigma**2 + 1) ** 0.5, t)
        if scheduler.config.prediction_type == "epsilon":
            return x - sigma * out
        return out * (-sigma / (sigma**2 + 1) ** 0.5) + x / (sigma**2 + 1)

    function = getattr(functions_of_k_diffusion(), OF_K_DIFFUSION[sampler])
    return function(denoiser, initial() * scheduler.init_noise_sigma, scheduler.sigmas, disable=True, eta=eta,
                    noise_sampler=lambda *_: torch.randn(SHAPE, generator=generator))


def trajectory(sampler, schedule, spacing, steps, prediction, eta=None, begin=None, **more):
    scheduler, kwargs = make(sampler, "sd15", schedule, spacing, prediction_type=prediction, **more)
    scheduler.set_timesteps(steps)
    if sampler in OF_K_DIFFUSION:
        x = run_of_k_diffusion(sampler, scheduler, 1.0 if eta is None else eta)
    else:
        x = run(sampler, scheduler, 0.0 if eta is None else eta, begin)
    assert x.dtype == torch.float32
    return {"sampler": sampler, "config": "sd15", "schedule": schedule, "spacing": spacing, "steps": steps,
            "prediction": prediction, "eta": eta, "begin": begin,
            "kwargs": {k: v for k, v in kwargs.items() if k not in FLAGS[schedule] and k != "timestep_spacing"},
            "final": f32(x.flatten())}


def trajectories():
    every = [*CLASSES, *OF_K_DIFFUSION]
    rows = [trajectory(s, "normal", "linspace", steps, prediction)
            for s in every for steps in STEPS for prediction in ("epsilon", "v_prediction")]
    rows += [trajectory(s, "normal", spacing, steps, "epsilon")
             for s in every if s not in ("lcm", "tcd") for spacing in ("leading", "trailing") for steps in (7, 20)]
    rows += [trajectory(s, schedule, "linspace", steps, "epsilon")
             for s in (*WITH_SCHEDULES, *OF_K_DIFFUSION) for schedule in ("karras", "exponential", "beta")
             for steps in (7, 20)]
    rows += [trajectory(s, "normal", "trailing", 7, "v_prediction", rescale_betas_zero_snr=True)
             for s in WITH_ZERO_SNR]
    rows += [trajectory("tcd", "normal", "linspace", steps, prediction, eta=eta)
             for eta in (0.3, 1.0) for steps in (2, 7, 20) for prediction in ("epsilon", "v_prediction")]
    rows += [trajectory(s, "normal", "linspace", 7, "epsilon", eta=0.5) for s in OF_K_DIFFUSION]
    # Image to image, where a run begins late; lms weighs there as if it had seen the slopes of the steps left out.
    begins = {"heun": (2, 8), "dpm2": (2, 8), "dpm2_a": (2, 8), "dpmpp_sde": (2, 8)}
    rows += [trajectory(s, "normal", "leading", 7, "epsilon", begin=begin)
             for s in CLASSES for begin in begins.get(s, (1, 4))]
    rows += [trajectory("deis", "normal", "linspace", steps, "epsilon", solver_order=3) for steps in (7, 20)]
    rows += [trajectory("ddpm", "normal", "leading", 7, "epsilon", **more)
             for more in ({"variance_type": "fixed_large"}, {"clip_sample": True, "clip_sample_range": 0.8})]
    rows += [trajectory("heun", "normal", "linspace", 7, "epsilon", clip_sample=True, clip_sample_range=0.8),
             trajectory("lcm", "normal", "linspace", 4, "epsilon", original_inference_steps=100),
             trajectory("lcm", "normal", "linspace", 4, "sample", timestep_scaling=3.0, clip_sample=True)]
    return rows


def build(output):
    about = {"made_by": {**made_by("solvers.py"), "k_diffusion": importlib.metadata.version("k-diffusion"),
                         "scipy": importlib.metadata.version("scipy")},
             "about": ABOUT, "noise_seed": NOISE_SEED, "initial": {"shape": SHAPE, "values": f32(initial().flatten())}}
    text = json.dumps(about, indent=1)[:-2]
    for name, rows in (("tables", tables()), ("trajectories", trajectories())):
        lines = ",\n".join("  " + json.dumps(row, allow_nan=False, separators=(",", ":")) for row in rows)
        text += f",\n \"{name}\": [\n{lines}\n ]"
    (output / "solvers.json").write_text(text + "\n}\n", encoding="utf-8")
