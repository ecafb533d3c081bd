"""Our sampler names, the diffusers classes behind them, and the scheduler configurations of the real models."""

from diffusers import (DDIMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler,
                       EulerDiscreteScheduler, PNDMScheduler, UniPCMultistepScheduler)

CLASSES = {
    "euler": EulerDiscreteScheduler,
    "euler_a": EulerAncestralDiscreteScheduler,
    "ddim": DDIMScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}
SCHEDULES = {"normal": {}, "karras": {"use_karras_sigmas": True}, "exponential": {"use_exponential_sigmas": True}}
SPACINGS = ("linspace", "leading", "trailing")

# The scheduler_config.json files of the real models, as they stand on the hub.
SD15 = {
    "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": False, "num_train_timesteps": 1000,
    "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None,
}
SD21 = {
    "_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": False, "num_train_timesteps": 1000,
    "prediction_type": "v_prediction", "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
    "trained_betas": None,
}
SDXL = {
    "_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0", "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": False, "interpolation_type": "linear",
    "num_train_timesteps": 1000, "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": False,
    "skip_prk_steps": True, "steps_offset": 1, "timestep_spacing": "leading", "trained_betas": None,
    "use_karras_sigmas": False,
}
LINEAR = {**SD15, "beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "steps_offset": 0}
CONFIGS = {"sd15": SD15, "sd21": SD21, "sdxl": SDXL, "linear": LINEAR}

_BASES = {"PNDMScheduler": PNDMScheduler, "DDIMScheduler": DDIMScheduler,
          "EulerDiscreteScheduler": EulerDiscreteScheduler}


def supports(sampler, schedule):
    """In diffusers only the sigma-based solvers take other schedules; DDIM and Euler ancestral have none."""
    return schedule == "normal" or sampler in ("euler", "dpmpp_2m", "unipc")


def overrides(schedule="normal", timestep_spacing=None, **more):
    """The keyword arguments that a user gives to `from_config`."""
    spacing = {} if timestep_spacing is None else {"timestep_spacing": timestep_spacing}
    return {**SCHEDULES[schedule], **spacing, **more}


def base(config_name):
    """The scheduler that the pipeline itself would load from scheduler_config.json."""
    config = CONFIGS[config_name]
    return _BASES[config["_class_name"]].from_config(dict(config))


def make(sampler, base_config, kwargs):
    """`X.from_config(pipe.scheduler.config, ...)`: what is not overridden comes from the model, and what the model
    does not say comes from the defaults of X (not of the model's own class)."""
    return CLASSES[sampler].from_config(base_config, **kwargs)


def config_of(scheduler):
    """The resulting configuration, without what diffusers keeps for itself. JSON has no infinity: a string then."""
    return {"class": type(scheduler).__name__,
            **{k: str(v) if v in (float("inf"), float("-inf")) else v
               for k, v in sorted(scheduler.config.items()) if not k.startswith("_")}}
