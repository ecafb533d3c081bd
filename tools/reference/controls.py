"""ControlNets: what they add to a UNet's states, and whole runs that they steer."""

import shutil
import warnings

import numpy as np
import torch
from diffusers import (ControlNetModel, StableDiffusionControlNetImg2ImgPipeline,
                       StableDiffusionControlNetInpaintPipeline, StableDiffusionControlNetPipeline,
                       StableDiffusionXLControlNetImg2ImgPipeline, StableDiffusionXLControlNetInpaintPipeline,
                       StableDiffusionXLControlNetPipeline, UNet2DConditionModel)
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from PIL import Image, ImageDraw
from safetensors.torch import load_file

import families
import inpaints
import runs
import samplers
import transforms
import weights
from common import made_by, seeded, write_json, write_tensors

PIPES = {
    "text": (StableDiffusionControlNetPipeline, StableDiffusionXLControlNetPipeline),
    "image": (StableDiffusionControlNetImg2ImgPipeline, StableDiffusionXLControlNetImg2ImgPipeline),
    "inpaint": (StableDiffusionControlNetInpaintPipeline, StableDiffusionXLControlNetInpaintPipeline),
}
# Channels of the picture's embedding: one number for each halving from the picture to the latents, and one more
HINT = {"sd15": (8, 8, 16, 24), "sd21": (8, 16, 24), "sdxl": (8, 8, 16, 24)}
OWN = ("controlnet_cond_embedding", "controlnet_down_blocks", "controlnet_mid_block")
# Residuals that count beside the states and do not drown them
GAINS = {"controlnet_down_blocks": 0.7, "controlnet_mid_block": 0.7, "controlnet_cond_embedding": 1.8}

DEFAULTS = {**runs.DEFAULTS, "mode": "text", "nets": ["net"], "scale": [1.0], "start": [0.0], "end": [1.0],
            "guess_mode": False, "strength": None, "padding": None, "model": "model", "control_size": None}


def run(name, **changes):
    spec = {"name": name, **DEFAULTS, **changes}
    each = lambda values: values * len(spec["nets"]) if len(values) == 1 else values
    return {**spec, "start": each(spec["start"]), "end": each(spec["end"])}


RUNS = {
    "sd15": [
        run("euler"),
        run("weaker", scale=[0.5], sampler="dpmpp_2m", negative_prompt=runs.LOW, steps=5),
        run("middle", start=[0.2], end=[0.7], steps=5),
        run("two_nets", nets=["net", "net-2"], scale=[0.8, 0.6], sampler="ddim"),
        run("two_nets_in_turn", nets=["net", "net-2"], scale=[1.0, 0.7], start=[0.0, 0.5], end=[0.5, 1.0]),
        run("guess", guess_mode=True, prompt="", guidance_scale=4.0),
        run("guess_two_nets", guess_mode=True, nets=["net", "net-2"], scale=[1.0, 0.5], sampler="euler_a"),
        run("guess_no_guidance", guess_mode=True, guidance_scale=1.0, steps=3),
        run("no_guidance", guidance_scale=1.0, steps=3),
        run("odd_latent", width=40, height=56, steps=3),
        run("scaled", width=64, height=48, control_size=[96, 80], steps=3),
        run("two_images", num_images=2, steps=3, sampler="euler_a"),
        run("image", mode="image", strength=0.6, steps=5, sampler="ddim"),
        run("image_late", mode="image", strength=0.8, steps=5, start=[0.5]),
        run("inpaint", mode="inpaint", strength=1.0),
        run("inpaint_weaker", mode="inpaint", strength=0.6, steps=6, sampler="ddim", end=[0.7]),
        run("inpaint_part", mode="inpaint", strength=1.0, padding=4, control_size=[96, 80], sampler="ddim", scale=[0.4]),
        run("inpaint_own_model", mode="inpaint", strength=1.0, model="unet-inpaint"),
    ],
    "sd21": [
        run("ddim", width=48, height=48, sampler="ddim"),
        run("image", width=48, height=48, mode="image", strength=0.6, steps=5),
    ],
    "sdxl": [
        run("euler"),
        run("guess", guess_mode=True, negative_prompt=None, guidance_scale=4.0, scale=[0.8]),
        run("image", mode="image", strength=0.6, steps=5, sampler="ddim"),
        run("inpaint", mode="inpaint", strength=0.8, steps=5, end=[0.8]),
    ],
}

ABOUT = [
    "controlnet/config.json is that of a ControlNet whose way down and middle are those of model/unet, tensor by tensor; "
    "controlnet/net.safetensors (net-2: another one) holds the rest: the picture's embedding and the zero convolutions, "
    "which are not zero. names.json: what the tensors are called in a single file of the first release.",
    "controls.safetensors: <case>/cond (four times smaller than the picture in both directions, to be repeated) and what "
    "comes out, down_<i> and mid, for sample, timestep, context (and text_embeds, time_ids) of unet/<case> in "
    "expected.safetensors. conditioning_scale and guess_mode are in cases.",
    "One run each of StableDiffusion(XL)ControlNet(Img2Img, Inpaint)Pipeline in f32, with the fields of runs.json, "
    "transforms.json and inpaints.json. nets, scale, start, end: of each net; controls: its picture.",
    "headroom: as in runs.json, with the first latents disturbed. effect: how far the picture is from the one without nets.",
]


def picture(width, height, number):
    """Edges for the first net, something soft in colour for the second."""
    if number == 0:
        image = Image.new("RGB", (width, height))
        draw = ImageDraw.Draw(image)
        draw.ellipse([width // 5, height // 4, width * 4 // 5, height * 3 // 4], outline="white", width=2)
        draw.line([0, height - 5, width, height // 2], fill="white")
        return image
    return transforms.drawn(width, height).rotate(180)


def net(name, unet, salt):
    model = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=HINT[name]).eval()
    weights.fill(model, f"{name}/{salt}", GAINS.items())
    weights.round_to_half(model)
    state, shared = model.state_dict(), unet.state_dict()
    model.load_state_dict({key: t if key.startswith(OWN) else shared[key] for key, t in state.items()})
    return model


def save(model, name, folder, salt):
    if salt == "net":
        shutil.rmtree(folder, ignore_errors=True)
        model.save_config(folder)
        if name == "sd15":
            write_json(folder / "names.json", original_names(model))
    own = {key: t.half() for key, t in model.state_dict().items() if key.startswith(OWN)}
    write_tensors(folder / f"{salt}.safetensors", own)


BLOCKS = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}


def original_names(model):
    """The names of the first release; diffusers reads them back as its own."""
    each = model.config.layers_per_block + 1
    last = 2 * (len(model.controlnet_cond_embedding.blocks) + 1)
    names = {}
    for key in model.state_dict():
        parts = key.split(".")
        if parts[0] == "down_blocks" and parts[2] == "downsamplers":
            new = ["input_blocks", str((int(parts[1]) + 1) * each), "0.op", *parts[5:]]
        elif parts[0] == "down_blocks":
            place = 1 + int(parts[1]) * each + int(parts[3])
            new = ["input_blocks", str(place), *inside(parts[2], parts[4:])]
        elif parts[0] == "mid_block":
            place = "1" if parts[1] == "attentions" else str(2 * int(parts[2]))
            new = ["middle_block", place, *inside(parts[1], parts[3:])[1:]]
        elif key.startswith("controlnet_cond_embedding.blocks"):
            new = ["input_hint_block", str(2 * int(parts[2]) + 2), *parts[3:]]
        elif parts[0] == "controlnet_cond_embedding":
            new = ["input_hint_block", str(0 if parts[1] == "conv_in" else last), *parts[2:]]
        elif parts[0] == "controlnet_down_blocks":
            new = ["zero_convs", parts[1], "0", *parts[2:]]
        elif parts[0] == "time_embedding":
            new = ["time_embed", str(2 * int(parts[1][-1]) - 2), *parts[2:]]
        else:
            new = [{"conv_in": "input_blocks.0.0", "controlnet_mid_block": "middle_block_out.0"}[parts[0]], *parts[1:]]
        names[key] = ".".join(["control_model", *new])
    check_names(model, names)
    return names


def inside(kind, parts):
    return ["1", *parts] if kind == "attentions" else ["0", BLOCKS[parts[0]], *parts[1:]]


def check_names(model, names):
    """diffusers numbers the embedding's last convolution 14, as all published nets have it."""
    state = {names[key]: tensor for key, tensor in model.state_dict().items()}
    back = convert_controlnet_checkpoint(state, {"layers_per_block": model.config.layers_per_block})
    assert set(back) == set(names), set(back) ^ set(names)
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in back.items())


CASES = {"single": dict(conditioning_scale=1.0, guess_mode=False), "odd": dict(conditioning_scale=0.7, guess_mode=True)}


def components(name, folder, model):
    given = load_file(folder / "expected.safetensors")
    pixels = 2 ** (len(HINT[name]) - 1)
    out = {}
    for number, (case, options) in enumerate(CASES.items()):
        unet = {key.removeprefix(f"unet/{case}/"): t for key, t in given.items() if key.startswith(f"unet/{case}/")}
        height, width = (side * pixels // 4 for side in unet["sample"].shape[2:])
        cond = seeded(600 + number, 1, 3, height, width).sigmoid()
        added = {key: unet[key] for key in ("text_embeds", "time_ids")} if name == "sdxl" else None
        down, mid = model(unet["sample"], unet["timestep"], encoder_hidden_states=unet["context"],
                          controlnet_cond=cond.repeat_interleave(4, 2).repeat_interleave(4, 3),
                          added_cond_kwargs=added, return_dict=False, **options)
        assert min(t.abs().max() for t in [*down, mid]) > 0.01, "a residual that says nothing"
        out |= {f"{case}/cond": cond, f"{case}/mid": mid} | {f"{case}/down_{i}": t for i, t in enumerate(down)}
    write_tensors(folder / "controls.safetensors", out)


def pipe_for(spec, name, text_to_image, nets, folder):
    kind = PIPES[spec["mode"]][name == "sdxl"]
    chosen = [nets[net] for net in spec["nets"]]
    parts = {**text_to_image.components, "controlnet": chosen if len(chosen) > 1 else chosen[0]}
    if spec["model"] != "model":
        parts["unet"] = UNet2DConditionModel.from_pretrained(folder / spec["model"], torch_dtype=torch.float32).eval()
    more = dict(force_zeros_for_empty_prompt=True, add_watermarker=False) if name == "sdxl" else dict(
        requires_safety_checker=False)
    pipe = kind(**parts, **more)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generate(pipe, config, spec, inputs, shake=0.0):
    kwargs = samplers.overrides(spec["schedule"], spec["timestep_spacing"])
    pipe.scheduler = samplers.make(spec["sampler"], config, kwargs)
    prepare = type(pipe).prepare_latents

    def disturbed(*arguments, **options):
        latents = prepare(pipe, *arguments, **options)
        change = lambda first: first * (1 + shake * torch.sign(seeded(500, *first.shape))) if shake else first
        return (change(latents[0]), *latents[1:]) if isinstance(latents, tuple) else change(latents)

    one = len(spec["nets"]) == 1
    alone = lambda values: values[0] if one else values
    options = {"image": alone(inputs["controls"])}
    if spec["mode"] != "text":
        options = {"image": inputs["init"], "control_image": alone(inputs["controls"]), "strength": spec["strength"]}
    if spec["mode"] == "inpaint":
        options |= {"mask_image": inputs["mask"], "padding_mask_crop": spec["padding"]}
    if spec["mode"] != "image":
        options |= {"width": spec["width"], "height": spec["height"]}
    generators = [torch.Generator("cpu").manual_seed(spec["seed"] + k) for k in range(spec["num_images"])]
    if spec["mode"] == "inpaint":
        generators = generators[0]
    pipe.prepare_latents = disturbed
    images = pipe(spec["prompt"], negative_prompt=spec["negative_prompt"], num_inference_steps=spec["steps"],
                  guidance_scale=spec["guidance_scale"], eta=spec["eta"], num_images_per_prompt=spec["num_images"],
                  generator=generators, controlnet_conditioning_scale=alone(spec["scale"]),
                  control_guidance_start=spec["start"], control_guidance_end=spec["end"],
                  guess_mode=spec["guess_mode"], **options).images
    del pipe.prepare_latents
    if spec["mode"] == "inpaint" and spec["padding"] is None:
        images = [pipe.image_processor.apply_overlay(inputs["mask"], inputs["init"], image) for image in images]
    return images


def given(spec, folder):
    """The pictures that a run is given, and their files."""
    part = spec["padding"] is not None
    size = (96, 80) if part else (spec["width"], spec["height"])
    control_size = tuple(spec["control_size"] or size)
    controls = [picture(*control_size, 0 if net == "net" else 1) for net in spec["nets"]]
    files = [f"controls/{net}_{control_size[0]}x{control_size[1]}.png" for net in spec["nets"]]
    inputs, row = {"controls": controls}, {"controls": files}
    for image, file in zip(controls, files):
        image.save(folder / file, optimize=True)
    for kind, draw in (("init", transforms.drawn), ("mask", lambda *s: inpaints.marked(*s, part))):
        if spec["mode"] == "inpaint" or (spec["mode"] == "image" and kind == "init"):
            inputs[kind] = draw(*size)
            row[kind] = f"controls/{kind}_{size[0]}x{size[1]}{'_part' if part else ''}.png"
            inputs[kind].save(folder / row[kind], optimize=True)
    return inputs, row


def build(name, folder):
    warnings.filterwarnings("ignore")
    text_to_image = families.load(name, folder / "model")
    config = text_to_image.scheduler.config
    shutil.rmtree(folder / "controls", ignore_errors=True)
    (folder / "controls").mkdir(parents=True)
    nets = {}
    for salt in ("net", "net-2") if name == "sd15" else ("net",):
        nets[salt] = net(name, text_to_image.unet, salt)
        save(nets[salt], name, folder / "controlnet", salt)
    components(name, folder, nets["net"])
    rows = []
    for spec in RUNS[name]:
        inputs, row = given(spec, folder)
        pipe = pipe_for(spec, name, text_to_image, nets, folder)
        images = generate(pipe, config, spec, inputs)
        files = [f"controls/{spec['name']}{f'_{k}' if len(images) > 1 else ''}.png" for k in range(len(images))]
        for image, file in zip(images, files):
            image.save(folder / file, optimize=True)
        with torch.backends.mkldnn.flags(enabled=False):
            other = generate(pipe, config, spec, inputs, shake=1e-6)
        headroom = difference(other, images)
        assert headroom <= 1, f"{spec['name']}: roundings move the picture by {headroom} of 255"
        effect = difference(generate(pipe, config, {**spec, "scale": [0.0] * len(spec["nets"])}, inputs), images)
        assert effect > 10, f"{spec['name']}: the nets change the picture by {effect} of 255 only"
        rows.append({**spec, "seed": str(spec["seed"]), **row, "files": files, "headroom": headroom, "effect": effect})
    write_json(folder / "controls.json", {
        "made_by": made_by("controls.py"), "about": ABOUT, "cases": CASES, "runs": rows})


def difference(a, b):
    return int(np.abs(runs.as_array(a) - runs.as_array(b)).max())
