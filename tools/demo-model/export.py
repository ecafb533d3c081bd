"""Write the trained networks as a diffusers folder in f16.

    python export.py --work DIR --out ../../models/demo [--scheduler euler]
"""

import argparse
import json
import shutil
from pathlib import Path

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from captions import load_tokenizer
from models import FACTOR, count, make_text_encoder, make_unet, make_vae
from scene import SIZE, Scene, draw
from split import held_out
from train_diffusion import SCHEDULE

SCHEDULERS = {
    "ddim": ("DDIMScheduler", dict(set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading")),
    "euler": ("EulerDiscreteScheduler", dict(steps_offset=1, timestep_spacing="leading")),
    "euler_a": ("EulerAncestralDiscreteScheduler", dict(steps_offset=1, timestep_spacing="leading")),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", dict(steps_offset=1, timestep_spacing="leading",
                                                     algorithm_type="dpmsolver++", solver_order=2)),
    "unipc": ("UniPCMultistepScheduler", dict(steps_offset=1, timestep_spacing="leading")),
}


@torch.no_grad()
def latent_rgb(vae, scale):
    """How to show scaled latents as colours in [-1, 1]: a matrix and a bias, by
    least squares over the latents of 48 pictures that training did not see."""
    allowed = held_out()
    pictures = np.stack([draw(Scene(*allowed[2 * i], "center", "medium", 70 + i)) for i in range(48)])
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    z = vae.encode(x).latent_dist.mode() * scale
    rows = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
    rows = torch.cat([rows, torch.ones(len(rows), 1)], 1)
    colours = F.avg_pool2d(x, FACTOR).permute(0, 2, 3, 1).reshape(-1, 3)
    fit = torch.linalg.lstsq(rows, colours).solution
    print(f"latents to colours: error {127.5 * (rows @ fit - colours).square().mean().sqrt():.1f} of 255")
    fit = [[round(v, 3) for v in row] for row in fit.tolist()]
    return {"factors": fit[:-1], "bias": fit[-1]}


def scheduler(name):
    kind, more = SCHEDULERS[name]
    settings = {k: v for k, v in SCHEDULE.items() if k != "clip_sample" or name == "ddim"}
    return getattr(diffusers, kind)(**settings, **more)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--work", type=Path, required=True)
    args.add_argument("--out", type=Path, required=True)
    args.add_argument("--weights", type=Path, help="another state than DIR/last.pt")
    args.add_argument("--scheduler", choices=SCHEDULERS, default="ddim")
    args.add_argument("--steps", type=int, default=20)
    args.add_argument("--guidance", type=float, default=3.0)
    args = args.parse_args()

    tokenizer = load_tokenizer(args.work / "tokenizer")
    vae, unet, text = make_vae(), make_unet(), make_text_encoder(tokenizer)
    vae.load_state_dict(torch.load(args.work / "vae.pt"))
    scale = json.loads((args.work / "scale.json").read_text())["scaling_factor"]
    vae.register_to_config(scaling_factor=round(scale, 6))
    both = torch.nn.ModuleDict({"unet": unet, "text": text})
    names = [name for name, _ in both.named_parameters()]
    trained = torch.load(args.weights or args.work / "last.pt")
    both.load_state_dict(dict(zip(names, trained["average"])))
    colours = latent_rgb(vae, scale)
    print(f"vae {count(vae)}, unet {count(unet)}, text {count(text)} parameters")

    pipe = StableDiffusionPipeline(
        vae=vae.half(), text_encoder=text.half(), tokenizer=tokenizer, unet=unet.half(),
        scheduler=scheduler(args.scheduler), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False)
    kept = {p: (args.out / p).read_bytes() for p in ("README.md", "eval.json") if (args.out / p).exists()}
    shutil.rmtree(args.out, ignore_errors=True)
    pipe.save_pretrained(args.out)
    for name, data in kept.items():
        (args.out / name).write_bytes(data)
    # The tokenizer goes out as the classic files; the library writes only its
    # own combined one.
    shutil.rmtree(args.out / "tokenizer")
    shutil.copytree(args.work / "tokenizer", args.out / "tokenizer")
    # The classic names of the text encoder's weights, as in most published
    # models; the library reads both, other programs often only these.
    weights = args.out / "text_encoder" / "model.safetensors"
    tensors = {k if k.startswith("text_model.") else "text_model." + k: v for k, v in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    for path in args.out.rglob("*.safetensors"):
        path.chmod(0o644)
    # No trace of the machine it was made on.
    for path in args.out.rglob("*.json"):
        data = json.loads(path.read_text())
        if isinstance(data, dict) and data.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(data, indent=2) + "\n")
    (args.out / "sd-worker.json").write_text(json.dumps({
        "default_steps": args.steps, "default_guidance_scale": args.guidance,
        "default_width": SIZE, "default_height": SIZE, "latent_rgb": colours}, indent=2) + "\n")
    total = sum(p.stat().st_size for p in args.out.rglob("*") if p.is_file())
    print(f"{total / 1e6:.2f} MB in {args.out}")


if __name__ == "__main__":
    main()
