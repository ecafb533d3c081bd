"""Random weights with a purpose: every bias, norm and embedding matters, and the picture has contrast."""

import math
import zlib

import numpy as np
import torch

# Extra gain by part of the name, so that text and time change the picture as clearly as the latents do.
GAINS = {
    "attn2.to_out": 2.5,  # the prompt
    "time_emb_proj": 1.5,  # the timestep
    "linear_2": 1.5,
}


def fill(model, salt, gains=()):
    """Overwrites every parameter. Each depends on `salt` and its own name only: adding a layer shifts no other."""
    for name, parameter in model.named_parameters():
        source = np.random.default_rng(zlib.crc32(f"{salt}/{name}".encode()))
        noise = torch.from_numpy(source.standard_normal(tuple(parameter.shape)).astype(np.float32))
        parameter.data.copy_(shaped(name, noise, parameter) * gain(name, gains))


def gain(name, extra):
    value = 1.0
    for part, factor in {**GAINS, **dict(extra)}.items():
        if part in name:
            value *= factor
    return value


def shaped(name, noise, parameter):
    if "embedding" in name and not any(part in name for part in ("time_embedding", "add_embedding", "cond_embedding")):
        return noise * (0.3 if "position" in name else 1.0)
    if parameter.ndim == 1:
        is_norm = "norm" in name and name.endswith("weight")
        return 1 + 0.1 * noise if is_norm else 0.1 * noise
    return noise / math.sqrt(parameter[0].numel())


def round_to_half(model):
    """Makes every weight a number that f16 holds exactly, so that an fp16 copy is the same model."""
    for parameter in model.parameters():
        parameter.data.copy_(parameter.data.half().float())
