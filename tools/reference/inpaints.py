"""Inpainting runs: a marked part of a drawn picture, with an ordinary model and with one made for it."""

import shutil
import warnings

import numpy as np
import torch
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionXLInpaintPipeline, UNet2DConditionModel
from PIL import Image, ImageDraw

import families
import runs
import samplers
import transforms
import weights
from common import made_by, seeded, write_json

DEFAULTS = {**transforms.DEFAULTS, "strength": 1.0, "padding": None, "blur": 0, "model": "model"}


def run(name, **changes):
    return {"name": name, **DEFAULTS, **changes}


RUNS = {
    "sd15": [
        run("euler"),
        run("weaker", strength=0.6, steps=6, negative_prompt=runs.LOW),
        run("euler_a", sampler="euler_a", strength=0.8),
        run("ddim_eta", sampler="ddim", eta=1.0),
        run("dpmpp_2m_karras", sampler="dpmpp_2m", schedule="karras", steps=6),
        run("no_guidance", guidance_scale=1.0, sampler="unipc"),
        run("landscape", width=88, height=56),
        run("part", padding=4, sampler="ddim", width=64, height=64),
        run("own_model", model="unet-inpaint"),
        run("own_model_weaker", model="unet-inpaint", strength=0.6, sampler="euler_a"),
        run("own_model_no_guidance", model="unet-inpaint", guidance_scale=1.0, sampler="ddim"),
        run("blurred", blur=4),
        run("blurred_wide", blur=17, strength=0.7, sampler="ddim", width=88, height=56),
        run("blurred_part", blur=3, padding=4, sampler="ddim", width=64, height=64),
        run("blurred_own_model", blur=6, model="unet-inpaint"),
    ],
    "sdxl": [
        run("euler"),
        run("weaker", strength=0.5, steps=6, sampler="ddim"),
        run("blurred", blur=5),
        run("blurred_weaker", blur=9, strength=0.6, steps=6, sampler="ddim"),
    ],
}

ABOUT = [
    "One run each of StableDiffusion(XL)InpaintPipeline in f32, with the fields of transforms.json; one image each, as the "
    "reference draws the VAE's sample for several from the first one's generator only.",
    "mask: white is redrawn. padding: padding_mask_crop; then the picture is larger than what the model works on, and the "
    "result is as large as the picture. model unet-inpaint: the model with that folder's UNet of nine channels.",
    "blur: the mask is blurred by mask_processor.blur with this radius first; the file of mask is the one before.",
    "The files are what apply_overlay makes of picture, mask and result: outside the mask the picture's own bytes.",
    "With padding the reference scales by PIL; others may differ by a few of 255 there.",
]


def marked(width, height, part):
    image = Image.new("L", (width, height), 0)
    box = [width * 5 // 8, height * 5 // 8, width * 7 // 8, height * 7 // 8] if part else [8, 16, width // 2, height - 9]
    ImageDraw.Draw(image).rectangle(box, fill=255)
    return image


def own_unet(folder):
    """A UNet that takes mask and picture beside the latents; stored in half precision, which holds it exactly."""
    model = UNet2DConditionModel(**{**families.unet("sd15").config, "in_channels": 9}).eval()
    weights.fill(model, "sd15/unet-inpaint", {"conv_out": families.UNET_GAIN["sd15"]}.items())
    weights.round_to_half(model)
    shutil.rmtree(folder, ignore_errors=True)
    model.half().save_pretrained(folder, safe_serialization=True)
    return model.float()


def generate(pipe, config, spec, init, mask, shake=0.0):
    kwargs = samplers.overrides(spec["schedule"], spec["timestep_spacing"])
    pipe.scheduler = samplers.make(spec["sampler"], config, kwargs)
    prepare = type(pipe).prepare_latents

    def disturbed(*arguments, **options):
        latents, *others = prepare(pipe, *arguments, **options)
        return (latents * (1 + shake * torch.sign(seeded(500, *latents.shape))) if shake else latents, *others)

    pipe.prepare_latents = disturbed
    image = pipe(spec["prompt"], image=init, mask_image=mask, strength=spec["strength"], width=spec["width"],
                 height=spec["height"], padding_mask_crop=spec["padding"], negative_prompt=spec["negative_prompt"],
                 num_inference_steps=spec["steps"], guidance_scale=spec["guidance_scale"], eta=spec["eta"],
                 generator=torch.Generator("cpu").manual_seed(spec["seed"])).images[0]
    del pipe.prepare_latents
    return image if spec["padding"] is not None else pipe.image_processor.apply_overlay(mask, init, image)


def build(name, folder):
    if name not in RUNS:
        return
    warnings.filterwarnings("ignore")
    text_to_image = families.load(name, folder / "model")
    config = text_to_image.scheduler.config
    kind = StableDiffusionXLInpaintPipeline if name == "sdxl" else StableDiffusionInpaintPipeline
    pipes = {"model": kind.from_pipe(text_to_image)}
    if name == "sd15":
        parts = {**text_to_image.components, "unet": own_unet(folder / "unet-inpaint")}
        pipes["unet-inpaint"] = kind(**parts, requires_safety_checker=False)
    (folder / "inpaints").mkdir(parents=True, exist_ok=True)
    rows = []
    for spec in RUNS[name]:
        pipe = pipes[spec["model"]]
        pipe.set_progress_bar_config(disable=True)
        part = spec["padding"] is not None
        size = (96, 80) if part else (spec["width"], spec["height"])
        init, mask = transforms.drawn(*size), marked(*size, part)
        files = [f"inpaints/{kind}_{size[0]}x{size[1]}.png" for kind in ("init", "mask")]
        for image, file in zip((init, mask), files):
            image.save(folder / file, optimize=True)
        mask = pipe.mask_processor.blur(mask, spec["blur"])
        image = generate(pipe, config, spec, init, mask)
        file = f"inpaints/{spec['name']}.png"
        image.save(folder / file, optimize=True)
        with torch.backends.mkldnn.flags(enabled=False):
            other = generate(pipe, config, spec, init, mask, shake=1e-6)
        headroom = int(np.abs(runs.as_array([other]) - runs.as_array([image])).max())
        assert headroom <= 1, f"{spec['name']}: roundings move the picture by {headroom} of 255"
        change = np.abs(runs.as_array([image]) - runs.as_array([init]))[0].max(axis=-1)
        assert change.max() > 10 and change[np.asarray(mask) == 0].max() == 0, "not what the mask marks was redrawn"
        rows.append({**spec, "seed": str(spec["seed"]), "init": files[0], "mask": files[1], "files": [file],
                     "headroom": headroom})
    write_json(folder / "inpaints.json", {"made_by": made_by("inpaints.py"), "about": ABOUT, "runs": rows})
