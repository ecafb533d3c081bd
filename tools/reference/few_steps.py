"""Runs as people use models for few steps (SDXL Lightning, LCM, TCD): another UNet over the tiny SDXL, and its settings."""

import warnings

import numpy as np
import torch
from diffusers import UNet2DConditionModel

import families
import runs
import solvers
from common import made_by, seeded, write_json, write_tensors

SHARE = 0.75  # of the weights of the way down: another UNet that need not be stored
CONDITION_WIDTH = 16


def run(name, **changes):
    return {"name": name, **runs.DEFAULTS, "guidance_scale": 0.0, "unet": "plain", **changes}


RUNS = [
    run("lightning", sampler="euler", timestep_spacing="trailing"),
    run("lightning_two_steps", sampler="euler", timestep_spacing="trailing", steps=2, prompt=runs.SAILOR),
    run("lcm", unet="guided", sampler="lcm", guidance_scale=8.0),
    run("lcm_without_embedding", sampler="lcm", guidance_scale=1.0),
    run("tcd", sampler="tcd", eta=0.3),
    run("tcd_guided", unet="guided", sampler="tcd", eta=0.7, guidance_scale=5.0, prompt=runs.CITY),
]

ABOUT = [
    "StableDiffusionXLPipeline with ../sdxl/model and another UNet: the model's, with every tensor of down_blocks times "
    f"{SHARE}. unet guided: with time_embedding.cond_proj.weight from cond_proj.safetensors (time_cond_proj_dim "
    f"{CONDITION_WIDTH}).",
    "headroom: as in runs.json.",
]


def other_unet(unet, guided):
    more = {"time_cond_proj_dim": CONDITION_WIDTH} if guided else {}
    model = UNet2DConditionModel(**{**unet.config, **more}).eval()
    tensors = {name: tensor * SHARE if name.startswith("down_blocks.") else tensor
               for name, tensor in unet.state_dict().items()}
    if guided:
        name = "time_embedding.cond_proj.weight"
        tensors[name] = 0.3 * seeded(901, *model.state_dict()[name].shape)
    model.load_state_dict(tensors)
    return model


def generate(pipe, spec, shake=0.0):
    pipe.scheduler, _ = solvers.make(spec["sampler"], None, spec["schedule"], spec["timestep_spacing"],
                                     base=pipe.scheduler.config)
    prepare = type(pipe).prepare_latents

    def disturbed(*arguments, **options):
        latents = prepare(pipe, *arguments, **options)
        return latents * (1 + shake * torch.sign(seeded(500, *latents.shape))) if shake else latents

    pipe.prepare_latents = disturbed
    images = pipe(spec["prompt"], negative_prompt=spec["negative_prompt"], width=spec["width"], height=spec["height"],
                  num_inference_steps=spec["steps"], guidance_scale=spec["guidance_scale"], eta=spec["eta"],
                  generator=torch.Generator("cpu").manual_seed(spec["seed"])).images
    del pipe.prepare_latents
    return images


def build(output):
    warnings.filterwarnings("ignore")
    folder = output / "few_steps"
    folder.mkdir(parents=True, exist_ok=True)
    rows, pictures = [], {}
    for spec in RUNS:
        pipe = families.load("sdxl", output / "sdxl" / "model")
        pipe.unet = other_unet(pipe.unet, spec["unet"] == "guided")
        images = generate(pipe, spec)
        pipe.scheduler = families.samplers.base("sdxl")
        with torch.backends.mkldnn.flags(enabled=False):
            other = runs.as_array(generate(pipe, spec, shake=1e-6))
        headroom = int(np.abs(other - runs.as_array(images)).max())
        assert headroom <= 1, f"{spec['name']}: roundings move the picture by {headroom} of 255"
        images[0].save(folder / f"{spec['name']}.png", optimize=True)
        pictures[spec["name"]] = runs.as_array(images)
        rows.append({**spec, "seed": str(spec["seed"]), "files": [f"{spec['name']}.png"], "headroom": headroom})
        if spec["name"] == "lcm":
            name = "time_embedding.cond_proj.weight"
            write_tensors(folder / "cond_proj.safetensors", {name: pipe.unet.state_dict()[name]})
    assert np.abs(pictures["lcm"] - pictures["lcm_without_embedding"]).max() > 10, "the embedding does not matter"
    write_json(folder / "few_steps.json", {"made_by": made_by("few_steps.py"), "about": ABOUT, "runs": rows})
