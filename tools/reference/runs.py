"""Whole text-to-image runs: the PNGs that the engine must reproduce, and a check that they can tell right from wrong."""

import warnings

import numpy as np
import torch
from transformers import CLIPTextModel

import families
import samplers
from common import made_by, seeded, write_json, write_tensors

GRASS, SAILOR, CITY = ("a red circle on green grass", "portrait of an old sailor, studio lighting",
                       "cyberpunk city street, neon lights, rain, night")
LOW = "low quality, blurry"

DEFAULTS = dict(prompt=GRASS, negative_prompt="", width=64, height=64, steps=4, guidance_scale=7.5, seed=42,
                sampler="euler", schedule="normal", timestep_spacing=None, eta=0.0, num_images=1)


def run(name, **changes):
    return {"name": name, **DEFAULTS, **changes}


RUNS = {
    "sd15": [
        run("euler"),
        run("euler_karras", schedule="karras", steps=5),
        run("euler_trailing", timestep_spacing="trailing", steps=3, prompt=SAILOR),
        run("euler_a", sampler="euler_a", negative_prompt=LOW),
        run("euler_a_leading", sampler="euler_a", timestep_spacing="leading", steps=5, seed=7),
        run("ddim", sampler="ddim", negative_prompt=LOW, guidance_scale=5.0),
        run("ddim_eta", sampler="ddim", eta=1.0, steps=5),
        run("ddim_trailing", sampler="ddim", timestep_spacing="trailing", steps=3, prompt=CITY),
        run("dpmpp_2m", sampler="dpmpp_2m", steps=5),
        run("dpmpp_2m_karras", sampler="dpmpp_2m", schedule="karras", steps=6, prompt=SAILOR, seed=3),
        run("dpmpp_2m_leading", sampler="dpmpp_2m", timestep_spacing="leading", steps=4),
        run("unipc", sampler="unipc", steps=5),
        run("unipc_karras", sampler="unipc", schedule="karras", steps=6, guidance_scale=5.0),
        run("unipc_trailing", sampler="unipc", timestep_spacing="trailing", steps=3),
        run("no_guidance", guidance_scale=1.0),
        run("landscape", width=96, height=64, prompt=CITY, sampler="dpmpp_2m", steps=4),
        run("odd_latent", width=40, height=56, steps=3),
        run("two_images", num_images=2, steps=3, sampler="euler_a"),
        run("two_steps_large_seed", steps=2, seed=2**63 + 5, sampler="dpmpp_2m"),
        run("empty_prompt", prompt="", steps=3, sampler="ddim"),
        run("clip_skip", clip_skip=1, prompt=SAILOR, negative_prompt=LOW, guidance_scale=5.0),
        run("clip_skip_2", clip_skip=2, steps=3),
    ],
    "sd21": [
        run("ddim", width=48, height=48, sampler="ddim"),
        run("ddim_trailing", width=48, height=48, sampler="ddim", timestep_spacing="trailing", steps=3),
        run("euler", width=48, height=48, negative_prompt=LOW, guidance_scale=5.0),
        run("euler_a", width=48, height=48, sampler="euler_a", prompt=SAILOR + "!!!"),
        run("dpmpp_2m_karras", width=48, height=48, sampler="dpmpp_2m", schedule="karras", steps=6),
        run("unipc_portrait", width=40, height=72, sampler="unipc", steps=5, prompt=CITY),
        run("no_guidance", width=48, height=48, guidance_scale=1.0, steps=3),
        run("two_images", width=48, height=48, num_images=2, steps=3),
        run("clip_skip", width=48, height=48, clip_skip=1, prompt=SAILOR, negative_prompt=LOW, guidance_scale=5.0),
    ],
    "sdxl": [
        run("euler"),
        run("no_negative", negative_prompt=None),
        run("negative", negative_prompt=LOW, guidance_scale=5.0, prompt=SAILOR),
        run("euler_a_trailing", sampler="euler_a", timestep_spacing="trailing", steps=3),
        run("ddim", sampler="ddim", steps=5, seed=7),
        run("dpmpp_2m_karras", sampler="dpmpp_2m", schedule="karras", steps=6, prompt=CITY),
        run("unipc_landscape", width=88, height=56, sampler="unipc", steps=5),
        run("no_guidance", guidance_scale=1.0, steps=3, prompt="a cat!!!"),
        run("two_images", num_images=2, steps=3, negative_prompt=None),
        run("clip_skip", clip_skip=1, prompt=SAILOR, negative_prompt=LOW, guidance_scale=5.0),
    ],
}

ABOUT = [
    "One text-to-image run each: StableDiffusion(XL)Pipeline in f32 with X.from_config(pipe.scheduler.config, **kwargs).",
    "timestep_spacing null: not overridden, see scheduler.timestep_spacing for what came out. negative_prompt null: "
    "not given, which for SDXL with force_zeros_for_empty_prompt means zeros (text and pooled), while \"\" is encoded. "
    "guidance_scale 1 means no guidance at all. seed is a string (up to 2**64 - 1).",
    "Image k has its own generator, seeded with seed + k. files holds one PNG per image: RGB, 8 bits, "
    "round_half_even(clamp(x / 2 + 0.5, 0, 1) * 255).",
    "runs.safetensors: <name>/initial (after init_noise_sigma), <name>/step_<i> (two runs only), <name>/final "
    "(before the division by scaling_factor).",
    "headroom: the largest difference (of 255) when torch computes the same run without oneDNN and from first latents "
    "that are off by a relative 1e-6, that is, with other roundings everywhere. A right engine stays near it.",
    "SDXL: time_ids are [height, width, 0, 0, height, width], for the negative prompt as well.",
]
EVERY_STEP = ("euler_a", "dpmpp_2m", "dpmpp_2m_karras", "ddim")  # runs whose latents are stored after each step


def generate(pipe, scheduler_config, spec, shake=0.0):
    """The images, the first latents and the latents after each step. `shake` disturbs the first latents."""
    kwargs = samplers.overrides(spec["schedule"], spec["timestep_spacing"])
    pipe.scheduler = samplers.make(spec["sampler"], scheduler_config, kwargs)
    first, steps = [], []
    prepare = type(pipe).prepare_latents

    def remember(*arguments, **options):
        latents = prepare(pipe, *arguments, **options)
        first.append(latents * (1 + shake * torch.sign(seeded(500, *latents.shape))) if shake else latents)
        return first[-1]

    def after_step(_pipe, _index, _timestep, values):
        steps.append(values["latents"])
        return {}

    generators = [torch.Generator("cpu").manual_seed(spec["seed"] + k) for k in range(spec["num_images"])]
    pipe.prepare_latents = remember
    result = pipe(spec["prompt"], negative_prompt=spec["negative_prompt"], width=spec["width"], height=spec["height"],
                  num_inference_steps=spec["steps"], guidance_scale=spec["guidance_scale"], eta=spec["eta"],
                  num_images_per_prompt=spec["num_images"], generator=generators,
                  clip_skip=spec.get("clip_skip"), callback_on_step_end=after_step)
    del pipe.prepare_latents
    assert len(steps) == spec["steps"]
    return result.images, first[0], steps


def pixels(pipe, config, spec, shake=0.0):
    return as_array(generate(pipe, config, spec, shake)[0])


def as_array(images):
    return np.stack([np.asarray(image, dtype=np.int16) for image in images])


def headroom(pipe, config, spec, images):
    """How far other roundings alone move the picture: the tests allow 2 of 255, so this must stay below."""
    with torch.backends.mkldnn.flags(enabled=False):
        difference = int(np.abs(pixels(pipe, config, spec, shake=1e-6) - as_array(images)).max())
    assert difference <= 1, f"{spec['name']}: roundings move the picture by {difference} of 255"
    return difference


def check(name, pipe, config):
    """Fails when the fixtures could not tell a wrong engine from a right one."""
    side = 48 if name == "sd21" else 64
    base = run("base", width=side, height=side, seed=42, steps=5)
    reference = pixels(pipe, config, base)
    assert reference.std() > 30, "the picture is grey"
    assert ((reference == 0) | (reference == 255)).mean() < 0.1, "the picture is clipped"
    changed = {
        "prompt": {"prompt": "a blue square on green grass"}, "one word": {"prompt": "a red square on green grass"},
        "negative": {"negative_prompt": LOW}, "guidance": {"guidance_scale": 6.5}, "none": {"guidance_scale": 1.0},
        "seed": {"seed": 43}, "steps": {"steps": 6}, "sampler": {"sampler": "euler_a"},
        "dpmpp_2m": {"sampler": "dpmpp_2m"}, "unipc": {"sampler": "unipc"}, "karras": {"schedule": "karras"},
        "spacing": {"timestep_spacing": "trailing"},
    }
    found = {}
    for label, change in changed.items():
        difference = np.abs(pixels(pipe, config, {**base, **change}) - reference)
        found[label] = int(difference.max())
        assert difference.max() > 10, f"{name}: {label} changes the picture by {difference.max()} of 255 only"
    return found


def build(name, folder):
    warnings.filterwarnings("ignore")
    if not hasattr(CLIPTextModel, "text_model"):
        # This diffusers finds the final norm there for clip_skip; transformers 5 has no such module any more.
        CLIPTextModel.text_model = property(lambda model: model)
    pipe = families.load(name, folder / "model")
    config = pipe.scheduler.config
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    rows, tensors = [], {}
    for spec in RUNS[name]:
        images, first, steps = generate(pipe, config, spec)
        files = [f"runs/{spec['name']}{f'_{k}' if len(images) > 1 else ''}.png" for k in range(len(images))]
        for image, file in zip(images, files):
            image.save(folder / file, optimize=True)
        tensors |= {f"{spec['name']}/initial": first, f"{spec['name']}/final": steps[-1]}
        if spec["name"] in EVERY_STEP:
            tensors |= {f"{spec['name']}/step_{i}": step for i, step in enumerate(steps)}
        rows.append({**spec, "seed": str(spec["seed"]), "files": files,
                     "headroom": headroom(pipe, config, spec, images),
                     "scheduler": samplers.config_of(pipe.scheduler)})
    alone(pipe, config, next(s for s in RUNS[name] if s["num_images"] == 2))
    write_tensors(folder / "runs.safetensors", tensors)
    write_json(folder / "runs.json", {
        "made_by": made_by("runs.py"), "about": ABOUT, "model": "model",
        "sensitivity": {"about": "largest difference of 255 from one run when one thing changes; all over 10",
                        **check(name, pipe, config)},
        "runs": rows})


def alone(pipe, config, spec):
    """Image k of a batch is the image that seed + k gives alone, up to the rounding of a batched matmul."""
    batch = pixels(pipe, config, spec)
    for k in range(spec["num_images"]):
        single = pixels(pipe, config, {**spec, "num_images": 1, "seed": spec["seed"] + k})
        assert np.abs(single[0] - batch[k]).max() <= 1
