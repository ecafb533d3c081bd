"""A refiner: the tiny model, runs that it takes over from SDXL, what it makes of pictures, and its single file."""

import json
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from diffusers import (StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline,
                       UNet2DConditionModel)
from safetensors.torch import save_file
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

import families
import inpaints
import runs
import samplers
import single_files
import solvers
import tokenizer
import transforms
import weights
from common import made_by, seeded, write_json

# What is particular to the refiner: attention in the middle of the levels only, one depth for all of them, states of the
# second text encoder alone, five numbers beside the pooled text.
UNET = dict(sample_size=8, block_out_channels=(16, 32, 32), layers_per_block=2, norm_num_groups=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=2, cross_attention_dim=64, attention_head_dim=[2, 4, 4],
            use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=5 * 8 + 48)
GAIN = 2.0

DEFAULTS = {**runs.DEFAULTS, "steps": 5, "start": 0.6, "strength": None, "mask": False}


def run(name, **changes):
    return {"name": name, **DEFAULTS, **changes}


# With the model of `sdxl`, then the refiner.
HAND_OVERS = [
    run("euler", start=0.4),
    run("one_step", start=0.8),
    run("euler_a", sampler="euler_a", negative_prompt=runs.LOW, seed=7),
    run("ddim", sampler="ddim", start=0.3, prompt=runs.SAILOR),
    run("dpmpp_2m_karras", sampler="dpmpp_2m", schedule="karras", steps=7, start=0.5, prompt=runs.CITY),
    run("dpmpp_2m_sde", sampler="dpmpp_2m_sde", steps=6),
    run("unipc_trailing", sampler="unipc", timestep_spacing="trailing", start=0.5, steps=6),
    run("heun", sampler="heun", steps=5, start=0.5),
    run("dpm2_a", sampler="dpm2_a", steps=5),
    run("landscape_no_negative", start=0.3, width=88, height=56, negative_prompt=None, guidance_scale=5.0),
    run("no_guidance", guidance_scale=1.0, start=0.25),
    run("two_images", num_images=2, sampler="euler_a", steps=4, start=0.5),
    run("from_picture", strength=0.7, steps=6, sampler="ddim", start=0.7),
]
# With the refiner alone.
ALONE = [
    run("alone_euler", strength=0.5),
    run("alone_dpmpp_2m", strength=0.8, sampler="dpmpp_2m", negative_prompt=runs.LOW, prompt=runs.SAILOR),
    run("alone_two_images", strength=0.6, sampler="euler_a", num_images=2),
    run("alone_no_negative", strength=0.6, negative_prompt=None, width=88, height=56),
    run("alone_inpaint", strength=0.8, mask=True, sampler="ddim"),
]

ABOUT = [
    "hand_overs: StableDiffusionXLPipeline with ../sdxl/model and denoising_end `start` (strength: "
    "StableDiffusionXLImg2ImgPipeline from `init`), its latents to StableDiffusionXLImg2ImgPipeline with `model` and "
    "denoising_start `start`: the same prompts, steps and sampler, and the same generators, which go on where they were.",
    "Where a step asks the UNet twice, denoising_end may stop diffusers between the two; the first pass is stopped "
    "before such a step instead, which is where denoising_start begins.",
    "steps_taken: evaluations of the UNet by each of the two.",
    "alone: StableDiffusionXLImg2ImgPipeline with `model`; with a mask StableDiffusionXLInpaintPipeline.",
    "headroom: as in runs.json, with the first latents disturbed.",
]


def build_model(folder):
    tokenizer.save_fast(folder / "tokenizers" / "2", "!")
    unet = UNet2DConditionModel(in_channels=4, out_channels=4, **UNET).eval()
    weights.fill(unet, "refiner/unet", {"conv_out": GAIN}.items())
    text = CLIPTextModelWithProjection(families.text_config(**families.TEXT["sdxl_2"])).eval()
    weights.fill(text, "refiner/text")
    pipe = StableDiffusionXLImg2ImgPipeline(
        vae=families.vae("sdxl"), text_encoder=None, tokenizer=None, text_encoder_2=text, unet=unet,
        tokenizer_2=CLIPTokenizer.from_pretrained(folder / "tokenizers" / "2"), scheduler=samplers.base("sdxl"),
        requires_aesthetics_score=True, force_zeros_for_empty_prompt=False, add_watermarker=False)
    families.save(pipe, "sdxl", folder / "model")
    shutil.rmtree(folder / "tokenizers")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            path.chmod(0o644)


def load(folder):
    pipe = StableDiffusionXLImg2ImgPipeline.from_pretrained(folder, local_files_only=True, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def prepared(pipe, spec, shake=0.0):
    """The pipeline with the run's sampler. `shake` disturbs its first latents."""
    pipe.scheduler, _ = solvers.make(spec["sampler"], None, spec["schedule"], spec["timestep_spacing"],
                                     base=samplers.base("sdxl").config)
    prepare = type(pipe).prepare_latents

    def disturbed(*arguments, **options):
        latents = prepare(pipe, *arguments, **options)
        first, *others = latents if isinstance(latents, tuple) else (latents,)
        first = first * (1 + shake * torch.sign(seeded(500, *first.shape))) if shake else first
        return (first, *others) if others else first

    pipe.prepare_latents = disturbed
    return pipe


def options(spec, generators):
    return dict(negative_prompt=spec["negative_prompt"], num_inference_steps=spec["steps"],
                guidance_scale=spec["guidance_scale"], num_images_per_prompt=spec["num_images"], generator=generators)


def generators_of(spec):
    return [torch.Generator("cpu").manual_seed(spec["seed"] + k) for k in range(spec["num_images"])]


def hand_over(base, refiner, spec, init, shake=0.0):
    """The pictures, and how often each model was asked."""
    prepared(base, spec, shake)
    prepared(refiner, spec)
    generators, asked = generators_of(spec), [0, 0]
    place = {"image": init, "strength": spec["strength"]} if init else {"width": spec["width"], "height": spec["height"]}
    end = {"denoising_end": spec["start"]}
    if base.scheduler.order == 2:
        base.scheduler.set_timesteps(spec["steps"])
        train = base.scheduler.config.num_train_timesteps
        cutoff = round(train - spec["start"] * train)
        whole = int((base.scheduler.timesteps >= cutoff).sum()) // 2 * 2
        end = {}

    def count(which):
        def after_step(pipe, index, _timestep, _values):
            asked[which] = index + 1
            if which == 0 and not end and index + 1 == whole:
                pipe._interrupt = True
            return {}
        return after_step

    latents = base(spec["prompt"], output_type="latent", callback_on_step_end=count(0), **place, **end,
                   **options(spec, generators)).images
    images = refiner(spec["prompt"], image=latents, denoising_start=spec["start"], callback_on_step_end=count(1),
                     **options(spec, generators)).images
    del base.prepare_latents, refiner.prepare_latents
    assert min(asked) > 0, f"{spec['name']}: {asked}"
    return images, asked


def alone(pipe, spec, init, shake=0.0, scores=None):
    prepared(pipe, spec, shake)
    more, mask = scores or {}, inpaints.marked(*init.size, False)
    if spec["mask"]:
        more = {"mask_image": mask, "width": init.width, "height": init.height}
    images = pipe(spec["prompt"], image=init, strength=spec["strength"], **more,
                  **options(spec, generators_of(spec))).images
    del pipe.prepare_latents
    if spec["mask"]:
        images = [pipe.image_processor.apply_overlay(mask, init, image) for image in images]
    return images, []


def row(folder, spec, draw):
    """Writes the pictures of a run that `draw` makes."""
    init, init_file, mask_file = None, None, None
    if spec["strength"] is not None:
        init, init_file = transforms.drawn(spec["width"], spec["height"]), f"runs/init_{spec['width']}x{spec['height']}.png"
        init.save(folder / init_file, optimize=True)
    if spec["mask"]:
        mask_file = f"runs/mask_{spec['width']}x{spec['height']}.png"
        inpaints.marked(spec["width"], spec["height"], False).save(folder / mask_file, optimize=True)
    images, asked = draw(spec, init)
    with torch.backends.mkldnn.flags(enabled=False):
        other = runs.as_array(draw(spec, init, shake=1e-6)[0])
    headroom = int(np.abs(other - runs.as_array(images)).max())
    assert headroom <= 1, f"{spec['name']}: roundings move the picture by {headroom} of 255"
    files = [f"runs/{spec['name']}{f'_{k}' if len(images) > 1 else ''}.png" for k in range(len(images))]
    for image, file in zip(images, files):
        image.save(folder / file, optimize=True)
    return {**spec, "seed": str(spec["seed"]), "init": init_file, "mask": mask_file, "files": files,
            "steps_taken": asked, "headroom": headroom}


def check(base, over, by_itself):
    """Fails when the fixtures could not tell a wrong engine from a right one."""
    found = {}
    for spec in HAND_OVERS:
        if spec["strength"] is not None or spec["name"] == "one_step":
            continue
        prepared(base, spec)
        without = base(spec["prompt"], width=spec["width"], height=spec["height"],
                       **options(spec, generators_of(spec))).images
        del base.prepare_latents
        found[f"no refiner, {spec['name']}"] = largest(over(spec, None)[0], without)
    spec = ALONE[0]
    init = transforms.drawn(spec["width"], spec["height"])
    picture = by_itself(spec, init)[0]
    for name, scores in (("one score", {"negative_aesthetic_score": 6.0}), ("other scores", {"aesthetic_score": 2.5})):
        found[name] = largest(by_itself(spec, init, scores=scores)[0], picture)
    assert min(found.values()) > 10, found
    return found


def largest(images, others):
    return int(np.abs(runs.as_array(images) - runs.as_array(others)).max())


def build_runs(sdxl, folder):
    refiner = load(folder / "model")
    base = families.load("sdxl", sdxl / "model")
    from_picture = StableDiffusionXLImg2ImgPipeline.from_pipe(base, requires_aesthetics_score=False)
    parts = {name: part for name, part in refiner.components.items() if name not in ("image_encoder", "feature_extractor")}
    inpaint = StableDiffusionXLInpaintPipeline(**parts, requires_aesthetics_score=True, add_watermarker=False,
                                               force_zeros_for_empty_prompt=False)
    for pipe in (base, from_picture, inpaint):
        pipe.set_progress_bar_config(disable=True)
    (folder / "runs").mkdir(parents=True, exist_ok=True)

    def over(spec, init, shake=0.0):
        return hand_over(from_picture if init else base, refiner, spec, init, shake)

    def by_itself(spec, init, shake=0.0, scores=None):
        return alone(inpaint if spec["mask"] else refiner, spec, init, shake, scores)

    hand_overs = [row(folder, spec, over) for spec in HAND_OVERS]
    rows = [row(folder, spec, by_itself) for spec in ALONE]
    write_json(folder / "refiner.json", {
        "made_by": made_by("refiner.py"), "about": ABOUT, "model": "model",
        "sensitivity": {"about": "largest difference of 255 when one thing changes", **check(base, over, by_itself)},
        "hand_overs": hand_overs, "alone": rows})


def build_single_file(output, folder):
    """As `single_files.py`: the file has one text encoder, in the place where SDXL's has CLIP-L."""
    pipe = load(folder / "model")
    parts = {name: single_files.folder_tensors(folder / "model" / name) for name in ("unet", "vae", "text_encoder_2")}
    rows = single_files.recipe("refiner", pipe, {name: parts[name] for name in ("unet", "vae")})
    layers = pipe.text_encoder_2.config.num_hidden_layers
    rows["text_encoder_2"] = [("conditioner.embedders.0.model." + original, how, names)
                              for original, how, names in single_files.open_clip(layers, True)]
    assert sorted(n for _, _, names in rows["text_encoder_2"] for n in names) == sorted(parts["text_encoder_2"])
    spelt = {original: single_files.make(how, [parts[part][name] for name in ours])
             for part, entries in rows.items() for original, how, ours in entries}
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "model.safetensors"
        save_file({name: tensor.clone() for name, tensor in spelt.items()}, file)
        loaded = StableDiffusionXLImg2ImgPipeline.from_single_file(
            str(file), config=str(folder / "model"), local_files_only=True, torch_dtype=torch.float32)
        read = {name: single_files.plain(getattr(loaded, name).state_dict()) for name in parts}
    for part, tensors in parts.items():
        for name, tensor in tensors.items():
            assert torch.equal(read[part][name], tensor), (part, name)
    write_json(output / "single_files" / "refiner.json", {
        "made_by": made_by("refiner.py"), "about": single_files.ABOUT,
        "parts": {part: {original: " ".join([how, *(f"{name} {single_files.crc(read[part][name])}" for name in ours)])
                         for original, how, ours in entries} for part, entries in rows.items()}})


def build(output):
    warnings.filterwarnings("ignore")
    folder = output / "refiner"
    shutil.rmtree(folder, ignore_errors=True)
    build_model(folder)
    index = json.loads((folder / "model" / "model_index.json").read_text(encoding="utf-8"))
    assert index["requires_aesthetics_score"] and index["text_encoder"] == [None, None]
    build_runs(output / "sdxl", folder)
    build_single_file(output, folder)
