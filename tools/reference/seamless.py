"""Runs whose edges meet: every padded convolution of UNet and VAE sees the other side of the picture."""

import types
import warnings

import numpy as np
import torch
from torch.nn import functional

import families
import runs
from common import made_by, write_json

RUNS = {
    "sd15": [
        runs.run("both", tiling=["x", "y"]),
        runs.run("x", tiling=["x"], sampler="dpmpp_2m", prompt=runs.SAILOR),
        runs.run("y", tiling=["y"], width=40, height=56, sampler="ddim"),
    ],
    "sd21": [runs.run("both", width=48, height=48, tiling=["x", "y"], sampler="euler_a")],
    "sdxl": [runs.run("both", tiling=["x", "y"], width=88, height=56)],
}

ABOUT = [
    "As runs.json, with every convolution of UNet and VAE that pads doing so with the values of the opposite side, along "
    "the axes that tiling names, and with zeros along the other.",
]


def padded(axes):
    """A forward of Conv2d that pads so."""
    def forward(self, hidden, *_):
        (vertical, horizontal) = self.padding
        for axis, amounts in (("x", (horizontal, horizontal, 0, 0)), ("y", (0, 0, vertical, vertical))):
            hidden = functional.pad(hidden, amounts, mode="circular" if axis in axes else "constant")
        return functional.conv2d(hidden, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
    return forward


def let_edges_meet(pipe, axes):
    convolutions = [module for part in (pipe.unet, pipe.vae) for module in part.modules()
                    if isinstance(module, torch.nn.Conv2d) and max(module.padding) > 0]
    assert convolutions
    for module in convolutions:
        module.forward = types.MethodType(padded(axes), module)


def build(name, folder):
    warnings.filterwarnings("ignore")
    (folder / "seamless").mkdir(parents=True, exist_ok=True)
    rows = []
    for spec in RUNS[name]:
        pipe = families.load(name, folder / "model")
        pipe.set_progress_bar_config(disable=True)
        config = pipe.scheduler.config
        plain = runs.pixels(pipe, config, spec)
        let_edges_meet(pipe, spec["tiling"])
        image = runs.generate(pipe, config, spec)[0][0]
        headroom = runs.headroom(pipe, config, spec, [image])
        assert np.abs(runs.as_array([image]) - plain).max() > 10, "the edges make no difference"
        file = f"seamless/{spec['name']}.png"
        image.save(folder / file, optimize=True)
        rows.append({**spec, "seed": str(spec["seed"]), "files": [file], "headroom": headroom})
    write_json(folder / "seamless.json", {
        "made_by": made_by("seamless.py"), "about": ABOUT, "model": "model", "runs": rows})
