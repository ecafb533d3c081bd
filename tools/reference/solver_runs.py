"""Whole runs with the samplers of solvers.py, the options of guidance, and image to image where a step asks twice."""

import warnings

import numpy as np
import torch
from diffusers import LatentConsistencyModelPipeline, StableDiffusionImg2ImgPipeline, UNet2DConditionModel

import families
import runs
import solvers
import transforms
from common import made_by, seeded, write_json, write_tensors

CONDITION_WIDTH = 16  # of the guidance scale's embedding

DEFAULTS = {**runs.DEFAULTS, "strength": None, "guidance_rescale": 0.0, "guidance_interval": None, "kwargs": {},
            "model": "model"}


def run(name, **changes):
    return {"name": name, **DEFAULTS, **changes}


RUNS = {
    "sd15": [
        run("pndm", sampler="pndm", steps=6, negative_prompt=runs.LOW),
        run("pndm_two_steps", sampler="pndm", steps=2),
        run("pndm_from_picture", sampler="pndm", steps=8, strength=0.6),
        run("heun", sampler="heun", steps=4, prompt=runs.SAILOR),
        run("heun_from_picture", sampler="heun", steps=5, strength=0.6),
        run("dpm2_karras", sampler="dpm2", schedule="karras", steps=4),
        run("dpm2_a", sampler="dpm2_a", steps=4, seed=7),
        run("lms", sampler="lms", steps=6),
        run("lms_from_picture", sampler="lms", steps=8, strength=0.6),
        run("ddpm", sampler="ddpm", steps=5, prompt=runs.CITY),
        run("dpmpp_2m_sde", sampler="dpmpp_2m_sde", steps=5),
        run("deis", sampler="deis", steps=6),
        run("lcm", sampler="lcm", steps=4, guidance_scale=1.5),
        run("tcd", sampler="tcd", steps=4, eta=0.3, guidance_scale=1.5),
        run("euler_beta", schedule="beta", steps=5),
        run("two_images", sampler="dpm2_a", steps=3, num_images=2),
        run("rescale", guidance_rescale=0.7, steps=4),
        run("interval", guidance_interval=[0.2, 0.8], steps=5, sampler="ddim"),
        run("distilled", model="lcm", sampler="lcm", steps=4, guidance_scale=8.5),
        run("distilled_two_images", model="lcm", sampler="lcm", steps=2, guidance_scale=1.5, num_images=2),
    ],
    "sd21": [
        run("zero_snr", width=48, height=48, sampler="ddim", timestep_spacing="trailing", guidance_rescale=0.7,
            kwargs={"rescale_betas_zero_snr": True}, steps=5),
        run("pndm", width=48, height=48, sampler="pndm", steps=5),
    ],
    "sdxl": [
        run("heun", sampler="heun", steps=3),
        run("interval", guidance_interval=[0.0, 0.5], steps=4, negative_prompt=runs.LOW),
    ],
}

ABOUT = [
    "One run each, with the fields of runs.json. kwargs: what else goes to X.from_config. strength null: from noise; else "
    "StableDiffusionImg2ImgPipeline with `init`.",
    "guidance_interval [start, end]: in the evaluation i of n the UNet's answer without the prompt is replaced by the one "
    "with it unless i / n >= start and (i + 1) / n <= end.",
    "evaluations: how often the UNet was asked. headroom: as in runs.json.",
    "model lcm: LatentConsistencyModelPipeline; the UNet is the model's with time_cond_proj_dim and "
    "time_embedding.cond_proj.weight from cond_proj.safetensors.",
]


def generate(pipe, config, spec, init=None, shake=0.0):
    scheduler, _ = solvers.make(spec["sampler"], None, spec["schedule"], spec["timestep_spacing"], base=config,
                                **spec["kwargs"])
    pipe.scheduler = scheduler
    prepare, asked = type(pipe).prepare_latents, []
    scheduler.set_timesteps(spec["steps"])
    total = len(scheduler.timesteps)

    def disturbed(*arguments, **options):
        latents = prepare(pipe, *arguments, **options)
        return latents * (1 + shake * torch.sign(seeded(500, *latents.shape))) if shake else latents

    forward = type(pipe.unet).forward

    def counted(*arguments, **options):
        (answer,) = forward(pipe.unet, *arguments, **options)
        index = len(asked)
        asked.append(index)
        if spec["guidance_interval"]:
            start, end = spec["guidance_interval"]
            if not (index / total >= start and (index + 1) / total <= end):
                with_prompt = answer.chunk(2)[1]
                answer = torch.cat([with_prompt, with_prompt])
        return (answer,)

    generators = [torch.Generator("cpu").manual_seed(spec["seed"] + k) for k in range(spec["num_images"])]
    pipe.prepare_latents, pipe.unet.forward = disturbed, counted
    distilled = spec["model"] == "lcm"
    place = {"image": init, "strength": spec["strength"]} if init else {
        "width": spec["width"], "height": spec["height"]}
    more = {} if distilled else {"negative_prompt": spec["negative_prompt"], "eta": spec["eta"]}
    if not (init or distilled):
        more["guidance_rescale"] = spec["guidance_rescale"]
    images = pipe(spec["prompt"], num_inference_steps=spec["steps"], guidance_scale=spec["guidance_scale"],
                  num_images_per_prompt=spec["num_images"], generator=generators, **place, **more).images
    del pipe.prepare_latents, pipe.unet.forward
    return images, len(asked)


def distilled(pipe, folder):
    """The model with a UNet that takes the guidance scale as a condition."""
    unet = UNet2DConditionModel(**{**pipe.unet.config, "time_cond_proj_dim": CONDITION_WIDTH}).eval()
    name = "time_embedding.cond_proj.weight"
    weight = 0.3 * seeded(900, *unet.state_dict()[name].shape)
    unet.load_state_dict({**pipe.unet.state_dict(), name: weight})
    write_tensors(folder / "solver_runs/cond_proj.safetensors", {name: weight})
    parts = {**{key: part for key, part in pipe.components.items() if key != "image_encoder"}, "unet": unet}
    lcm = LatentConsistencyModelPipeline(**parts, requires_safety_checker=False)
    lcm.set_progress_bar_config(disable=True)
    return lcm


def build(name, folder):
    warnings.filterwarnings("ignore")
    pipe = families.load(name, folder / "model")
    config = pipe.scheduler.config
    (folder / "solver_runs").mkdir(parents=True, exist_ok=True)
    rows = []
    for spec in RUNS[name]:
        chosen, init = distilled(pipe, folder) if spec["model"] == "lcm" else pipe, None
        if spec["strength"] is not None:
            chosen = StableDiffusionImg2ImgPipeline.from_pipe(pipe)
            chosen.set_progress_bar_config(disable=True)
            init = transforms.drawn(spec["width"], spec["height"])
            init.save(folder / "solver_runs/init.png", optimize=True)
        images, evaluations = generate(chosen, config, spec, init)
        files = [f"solver_runs/{spec['name']}{f'_{k}' if len(images) > 1 else ''}.png" for k in range(len(images))]
        for image, file in zip(images, files):
            image.save(folder / file, optimize=True)
        with torch.backends.mkldnn.flags(enabled=False):
            other = runs.as_array(generate(chosen, config, spec, init, shake=1e-6)[0])
        headroom = int(np.abs(other - runs.as_array(images)).max())
        assert headroom <= 1, f"{spec['name']}: roundings move the picture by {headroom} of 255"
        rows.append({**spec, "seed": str(spec["seed"]), "init": "solver_runs/init.png" if init else None,
                     "files": files, "evaluations": evaluations, "headroom": headroom})
    for option in ("rescale", "interval"):
        with_it = next((spec for spec in RUNS[name] if spec["name"] == option), None)
        if with_it:
            plain = {**with_it, "guidance_rescale": 0.0, "guidance_interval": None}
            difference = np.abs(runs.as_array(generate(pipe, config, with_it)[0])
                                - runs.as_array(generate(pipe, config, plain)[0])).max()
            assert difference > 10, f"{name}: {option} changes the picture by {difference} of 255 only"
    write_json(folder / "solver_runs.json", {
        "made_by": made_by("solver_runs.py"), "about": ABOUT, "runs": rows})
