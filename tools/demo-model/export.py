"""Write the trained networks as a diffusers folder in f16.

    python export.py --work DIR --out ../../models/demo [--scheduler euler]
"""

import argparse
import json
import shutil
from pathlib import Path

import diffusers
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from captions import load_tokenizer
from models import count, make_text_encoder, make_unet, make_vae
from train_diffusion import SCHEDULE

SCHEDULERS = {
    "ddim": ("DDIMScheduler", dict(set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading")),
    "euler": ("EulerDiscreteScheduler", dict(steps_offset=1, timestep_spacing="leading")),
    "euler_a": ("EulerAncestralDiscreteScheduler", dict(steps_offset=1, timestep_spacing="leading")),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", dict(steps_offset=1, timestep_spacing="leading",
                                                     algorithm_type="dpmsolver++", solver_order=2)),
    "unipc": ("UniPCMultistepScheduler", dict(steps_offset=1, timestep_spacing="leading")),
}


# Colours of the latents, by least squares over 40 pictures of eval.json averaged to the latents' size. The VAE's latents are
# all but the colours themselves; the error is 9 of 255. Another VAE wants another fit.
LATENT_RGB = {
    "factors": [[0.507, 0.003, -0.002], [0.012, 0.515, -0.001], [0.001, 0.009, 0.514], [0.006, 0.002, 0.0]],
    "bias": [0.012, -0.004, -0.006],
}

def scheduler(name):
    kind, more = SCHEDULERS[name]
    settings = {k: v for k, v in SCHEDULE.items() if k != "clip_sample" or name == "ddim"}
    return getattr(diffusers, kind)(**settings, **more)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--work", type=Path, required=True)
    args.add_argument("--out", type=Path, required=True)
    args.add_argument("--scheduler", choices=SCHEDULERS, default="ddim")
    args.add_argument("--steps", type=int, default=20)
    args.add_argument("--guidance", type=float, default=3.0)
    args = args.parse_args()

    tokenizer = load_tokenizer(args.work / "tokenizer")
    vae, unet, text = make_vae(), make_unet(), make_text_encoder(tokenizer)
    vae.load_state_dict(torch.load(args.work / "vae.pt"))
    scale = json.loads((args.work / "scale.json").read_text())["scaling_factor"]
    vae.register_to_config(scaling_factor=round(scale, 6))
    trained = torch.load(args.work / "average.pt")
    for name, model in (("unet.", unet), ("text.", text)):
        model.load_state_dict({k[len(name):]: v for k, v in trained.items() if k.startswith(name)})
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
        "default_width": 64, "default_height": 64, "latent_rgb": LATENT_RGB}, indent=2) + "\n")
    total = sum(p.stat().st_size for p in args.out.rglob("*") if p.is_file())
    print(f"{total / 1e6:.2f} MB in {args.out}")


if __name__ == "__main__":
    main()
