"""taesd/*: a tiny AutoencoderTiny in each of its namings, what it decodes and encodes, and runs with it for the VAE."""

import shutil
import warnings

import numpy as np
import torch
from diffusers import AutoencoderTiny, StableDiffusionImg2ImgPipeline, StableDiffusionXLImg2ImgPipeline

import families
import runs
import transforms
import weights
from common import made_by, seeded, write_json, write_tensors

ABOUT = [
    "model: the folder that diffusers saves. original: the same tensors as the original repository names them, decoder and "
    "encoder in files of their own.",
    "latents -> decoded, around -1..1, not clamped; some latents lie beyond 3, where the decoder bends them. image in -1..1 -> "
    "encoded. Latents as the diffusion knows them.",
    "runs.json: runs of StableDiffusion(XL)Pipeline and, where there is a strength, StableDiffusion(XL)Img2ImgPipeline with the "
    "model of the named family and this autoencoder as its vae; fields as in that family's runs.json and transforms.json.",
]
TEXT_RUNS = [runs.run("euler"), runs.run("two_images", num_images=2, sampler="euler_a", width=56, height=40)]
PICTURE_RUNS = [transforms.run("picture", sampler="ddim", strength=0.6),
                transforms.run("two_pictures", num_images=2, sampler="euler_a", strength=0.6)]


def original(model, part, shift):
    """The original rows of layers: the decoder's has one more in front, which clamps."""
    layers = getattr(model, part).layers.state_dict()
    return {f"{int(name.split('.')[0]) + shift}.{name.split('.', 1)[1]}": tensor.half() for name, tensor in layers.items()}


def build(output):
    folder = output / "taesd"
    shutil.rmtree(folder, ignore_errors=True)
    channels = (6, 6, 6, 6)
    model = AutoencoderTiny(encoder_block_out_channels=channels, decoder_block_out_channels=channels,
                            num_encoder_blocks=(1, 1, 2, 1), num_decoder_blocks=(2, 1, 1, 1)).eval()
    weights.fill(model, "taesd")
    weights.round_to_half(model)
    latents = 2.5 * seeded(700, 2, 4, 5, 7)
    image = torch.tanh(seeded(701, 1, 3, 40, 56))
    tensors = {"latents": latents, "decoded": model.decode(latents).sample, "image": image,
               "encoded": model.encode(image).latents}
    assert latents.abs().max() > 5 and tensors["decoded"].std() > 0.1 and tensors["encoded"].std() > 0.1
    write_tensors(folder / "expected.safetensors", tensors)
    for part, shift in [("decoder", 1), ("encoder", 0)]:
        write_tensors(folder / "original" / f"taesd_{part}.safetensors", original(model, part, shift))
    model.half().save_pretrained(folder / "model", safe_serialization=True)
    write_json(folder / "expected.json", {"made_by": made_by("taesd.py"), "about": ABOUT})
    write_runs(output, folder)


def write_runs(output, folder):
    warnings.filterwarnings("ignore")
    (folder / "runs").mkdir()
    rows = []
    for family in ("sd15", "sdxl"):
        pipe = families.load(family, output / family / "model")
        kind = StableDiffusionXLImg2ImgPipeline if family == "sdxl" else StableDiffusionImg2ImgPipeline
        second = kind.from_pipe(pipe)
        pipe.vae = second.vae = AutoencoderTiny.from_pretrained(folder / "model").eval()
        second.set_progress_bar_config(disable=True)
        config = pipe.scheduler.config
        for spec in TEXT_RUNS:
            images = runs.generate(pipe, config, spec)[0]
            rows.append(row(family, folder, spec, images, runs.headroom(pipe, config, spec, images)))
        for spec in PICTURE_RUNS:
            init = transforms.drawn(spec["width"], spec["height"])
            init.save(folder / "runs" / "init.png", optimize=True)
            images = transforms.generate(second, config, spec, init)[0]
            with torch.backends.mkldnn.flags(enabled=False):
                other = runs.as_array(transforms.generate(second, config, spec, init, shake=1e-6)[0])
            headroom = int(np.abs(other - runs.as_array(images)).max())
            assert headroom <= 1, f"{spec['name']}: roundings move the picture by {headroom} of 255"
            rows.append({**row(family, folder, spec, images, headroom), "init": "runs/init.png"})
    write_json(folder / "runs.json", {"made_by": made_by("taesd.py"), "about": ABOUT, "runs": rows})


def row(family, folder, spec, images, headroom):
    several = len(images) > 1
    files = [f"runs/{family}_{spec['name']}{f'_{k}' if several else ''}.png" for k in range(len(images))]
    for image, file in zip(images, files):
        assert np.asarray(image).std() > 10, f"{file} is grey"
        image.save(folder / file, optimize=True)
    return {"family": family, **spec, "seed": str(spec["seed"]), "files": files, "headroom": headroom}
