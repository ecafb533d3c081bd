"""Image-to-image runs: what becomes of a drawn picture at several strengths."""

import warnings

import numpy as np
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionXLImg2ImgPipeline
from PIL import Image, ImageDraw

import families
import runs
import samplers
from common import made_by, seeded, write_json

DEFAULTS = {**runs.DEFAULTS, "strength": 0.8, "steps": 5}


def run(name, **changes):
    return {"name": name, **DEFAULTS, **changes}


RUNS = {
    "sd15": [
        run("euler"),
        run("all", strength=1.0, steps=4),
        run("one_step", strength=0.25, steps=4),
        run("euler_a", sampler="euler_a", strength=0.6, negative_prompt=runs.LOW),
        run("ddim", sampler="ddim", strength=0.5, steps=6),
        run("ddim_eta", sampler="ddim", eta=1.0),
        run("dpmpp_2m_karras", sampler="dpmpp_2m", schedule="karras", strength=0.7, steps=6, prompt=runs.SAILOR),
        run("unipc", sampler="unipc", strength=0.75, steps=6),
        run("no_guidance", guidance_scale=1.0, strength=0.5),
        run("landscape", width=88, height=56, strength=0.6, prompt=runs.CITY),
        run("two_images", num_images=2, strength=0.6, sampler="euler_a"),
    ],
    "sd21": [
        run("ddim", width=48, height=48, sampler="ddim", strength=0.6),
        run("euler", width=48, height=48, strength=0.7, negative_prompt=runs.LOW),
    ],
    "sdxl": [
        run("euler", strength=0.6),
        run("dpmpp_2m_no_negative", sampler="dpmpp_2m", negative_prompt=None),
        run("landscape", width=88, height=56, sampler="ddim", strength=0.5, steps=6),
    ],
}

ABOUT = [
    "One run each of StableDiffusion(XL)Img2ImgPipeline in f32, with the fields of runs.json. init: the picture that it "
    "starts from, already as large as the result. strength: int(steps * strength) steps are taken.",
    "Image k has its own generator, seeded with seed + k; it draws the sample of the VAE's distribution, then the noise.",
    "headroom: as in runs.json, with the noise of the first latents disturbed.",
]


def drawn(width, height):
    """A picture with edges, a gradient and saturated colours."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [columns * 255 // (width - 1), rows * 255 // (height - 1), np.full_like(rows, 96)]
    image = Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8), "RGB")
    ImageDraw.Draw(image).ellipse([width // 4, height // 4, width * 3 // 4, height * 3 // 4], fill=(220, 30, 40))
    return image


def generate(pipe, config, spec, init, shake=0.0):
    kwargs = samplers.overrides(spec["schedule"], spec["timestep_spacing"])
    pipe.scheduler = samplers.make(spec["sampler"], config, kwargs)
    prepare, taken = type(pipe).prepare_latents, []

    def disturbed(*arguments, **options):
        latents = prepare(pipe, *arguments, **options)
        return latents * (1 + shake * torch.sign(seeded(500, *latents.shape))) if shake else latents

    def after_step(_pipe, index, _timestep, _values):
        taken.append(index)
        return {}

    generators = [torch.Generator("cpu").manual_seed(spec["seed"] + k) for k in range(spec["num_images"])]
    pipe.prepare_latents = disturbed
    images = pipe(spec["prompt"], image=init, strength=spec["strength"], negative_prompt=spec["negative_prompt"],
                  num_inference_steps=spec["steps"], guidance_scale=spec["guidance_scale"], eta=spec["eta"],
                  num_images_per_prompt=spec["num_images"], generator=generators,
                  callback_on_step_end=after_step).images
    del pipe.prepare_latents
    return images, len(taken)


def build(name, folder):
    warnings.filterwarnings("ignore")
    text_to_image = families.load(name, folder / "model")
    config = text_to_image.scheduler.config
    kind = StableDiffusionXLImg2ImgPipeline if name == "sdxl" else StableDiffusionImg2ImgPipeline
    pipe = kind.from_pipe(text_to_image)
    pipe.set_progress_bar_config(disable=True)
    (folder / "transforms").mkdir(parents=True, exist_ok=True)
    rows = []
    for spec in RUNS[name]:
        size = (spec["width"], spec["height"])
        init, init_file = drawn(*size), f"transforms/init_{size[0]}x{size[1]}.png"
        init.save(folder / init_file, optimize=True)
        images, taken = generate(pipe, config, spec, init)
        files = [f"transforms/{spec['name']}{f'_{k}' if len(images) > 1 else ''}.png" for k in range(len(images))]
        for image, file in zip(images, files):
            image.save(folder / file, optimize=True)
        with torch.backends.mkldnn.flags(enabled=False):
            other = runs.as_array(generate(pipe, config, spec, init, shake=1e-6)[0])
        headroom = int(np.abs(other - runs.as_array(images)).max())
        assert headroom <= 1, f"{spec['name']}: roundings move the picture by {headroom} of 255"
        assert np.abs(runs.as_array(images[:1]) - runs.as_array([init])).max() > 10, "nothing was redrawn"
        rows.append({**spec, "seed": str(spec["seed"]), "init": init_file, "files": files, "steps_taken": taken,
                     "headroom": headroom})
    write_json(folder / "transforms.json", {
        "made_by": made_by("transforms.py"), "about": ABOUT, "model": "model", "runs": rows})
