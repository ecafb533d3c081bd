"""Two passes: a picture, enlarged, and redrawn in part."""

import warnings

import numpy as np
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionXLImg2ImgPipeline
from PIL import Image
from torch.nn import functional

import families
import runs
import samplers
from common import made_by, write_json


def run(name, **changes):
    return runs.run(name, **{"scale": 1.5, "upscaler": "latent", "strength": 0.6, "second_steps": 5, **changes})


RUNS = {
    "sd15": [
        run("latent"),
        run("two_images", num_images=2, sampler="euler_a", scale=2.0, width=40, height=48),
        run("lanczos", upscaler="lanczos", sampler="dpmpp_2m", negative_prompt=runs.LOW),
    ],
    "sd21": [run("latent", width=48, height=48, sampler="ddim", scale=1.34)],
    "sdxl": [run("latent", width=56, height=40), run("lanczos", upscaler="lanczos", strength=0.9)],
}

ABOUT = [
    "As runs.json, then the same prompts once more through StableDiffusion(XL)Img2ImgPipeline with new generators of the same "
    "seeds, from the first pass's result with sides of floor(side * scale / 8) * 8: its latents by "
    "interpolate(mode='bilinear'), or its PNG by PIL's LANCZOS. second_steps, strength: of the second pass.",
    "headroom: as in runs.json.",
]


def generate(pipe, config, spec, shake=0.0):
    images, _, steps = runs.generate(pipe, config, spec, shake)
    width, height = (int(spec[side] * spec["scale"]) // 8 * 8 for side in ("width", "height"))
    kind = StableDiffusionXLImg2ImgPipeline if "XL" in type(pipe).__name__ else StableDiffusionImg2ImgPipeline
    second = kind.from_pipe(pipe)
    second.set_progress_bar_config(disable=True)
    second.scheduler = samplers.make(spec["sampler"], config,
                                     samplers.overrides(spec["schedule"], spec["timestep_spacing"]))
    factor = second.vae_scale_factor
    if spec["upscaler"] == "latent":
        start = functional.interpolate(steps[-1], (height // factor, width // factor), mode="bilinear")
    else:
        start = [image.resize((width, height), Image.LANCZOS) for image in images]
    # One call for each image: a list of pictures wants a list of prompts.
    return [second(spec["prompt"], image=start[k:k + 1], strength=spec["strength"],
                   negative_prompt=spec["negative_prompt"], num_inference_steps=spec["second_steps"],
                   guidance_scale=spec["guidance_scale"], eta=spec["eta"],
                   generator=torch.Generator("cpu").manual_seed(spec["seed"] + k)).images[0]
            for k in range(spec["num_images"])]


def build(name, folder):
    warnings.filterwarnings("ignore")
    pipe = families.load(name, folder / "model")
    pipe.set_progress_bar_config(disable=True)
    config = pipe.scheduler.config
    (folder / "hires").mkdir(parents=True, exist_ok=True)
    rows = []
    for spec in RUNS[name]:
        images = generate(pipe, config, spec)
        with torch.backends.mkldnn.flags(enabled=False):
            other = runs.as_array(generate(pipe, config, spec, shake=1e-6))
        headroom = int(np.abs(other - runs.as_array(images)).max())
        assert headroom <= (1 if spec["upscaler"] == "latent" else 2), f"{spec['name']}: {headroom} of 255"
        files = [f"hires/{spec['name']}{f'_{k}' if len(images) > 1 else ''}.png" for k in range(len(images))]
        for image, file in zip(images, files):
            image.save(folder / file, optimize=True)
        rows.append({**spec, "seed": str(spec["seed"]), "files": files, "headroom": headroom})
    write_json(folder / "hires.json", {"made_by": made_by("hires.py"), "about": ABOUT, "model": "model", "runs": rows})
