"""Draw the held-out prompts with the exported model and count what is right.

    python evaluate.py --model ../../models/demo [--scheduler ddim] [--grid out.png]

Runs in f32 on the CPU; the noise comes from torch's CPU generator with the
seed given in eval.json, so that other programs can repeat it.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

import checker
from export import SCHEDULERS, scheduler


def draw(pipe, items, steps, guidance, seed_shift=0, together=10):
    """The items' pictures as bytes, each from its own seed."""
    for at in range(0, len(items), together):
        part = items[at:at + together]
        noise = [torch.Generator("cpu").manual_seed(item["seed"] + seed_shift) for item in part]
        for out in pipe([item["prompt"] for item in part], num_inference_steps=steps, guidance_scale=guidance,
                        generator=noise, output_type="np").images:
            yield (out * 255).round().astype(np.uint8)


def main():
    torch.set_num_threads(1)   # quicker than two on a busy machine, at this size
    args = argparse.ArgumentParser()
    args.add_argument("--model", type=Path, required=True)
    args.add_argument("--refs", type=Path, help="eval.json, if not in the model's folder")
    args.add_argument("--scheduler", choices=SCHEDULERS)
    args.add_argument("--steps", type=int)
    args.add_argument("--guidance", type=float)
    args.add_argument("--count", type=int, help="only the first so many prompts")
    args.add_argument("--seed-shift", type=int, default=0)
    args.add_argument("--grid", type=Path)
    args.add_argument("--verdicts", type=Path, help="write pictures and verdicts here, to compare a port with")
    args = args.parse_args()
    refs = json.loads((args.refs or args.model / "eval.json").read_text())
    default = json.loads((args.model / "sd-worker.json").read_text())
    steps = args.steps or default["default_steps"]
    guidance = args.guidance or default["default_guidance_scale"]
    pipe = StableDiffusionPipeline.from_pretrained(args.model, dtype=torch.float32, safety_checker=None)
    if args.scheduler:
        pipe.scheduler = scheduler(args.scheduler)
    pipe.set_progress_bar_config(disable=True)
    results, pictures, lines, start = {}, [], [], time.time()
    items = refs["prompts"][: args.count]
    for item, picture in zip(items, draw(pipe, items, steps, guidance, args.seed_shift)):
        pictures.append(picture)
        ok = checker.verdict(picture, item, refs)
        lines.append({"prompt": item["prompt"], "seed": item["seed"], "right": ok,
                      "seen": checker.look(picture, refs)})
        ok = {**ok, "colour and ground": ok["colour"] and ok["ground"]}
        for key, value in ok.items():
            results.setdefault(key, []).append(value)
        if not all(ok.values()):
            print("  missed", [k for k, v in ok.items() if not v], "-", item["prompt"], "-",
                  {k: v for k, v in lines[-1]["seen"].items()})
    print(type(pipe.scheduler).__name__, "steps", steps, "guidance", guidance,
          {k: f"{100 * np.mean(v):.1f} % of {len(v)}" for k, v in results.items()},
          f"{(time.time() - start) / len(pictures):.2f} s each")
    bare, alone = refs["textures"], []
    for item, picture in zip(bare, draw(pipe, bare, steps, guidance, args.seed_shift)):
        seen = checker.look(picture, refs)
        alone.append(seen["ground"] == item["ground"] and seen["colour"] is None)
        pictures.append(picture)
        if not alone[-1]:
            print("  missed -", item["prompt"], "-", seen)
    print(f"grounds alone: {sum(alone)} of {len(alone)}")
    if args.verdicts:
        args.verdicts.mkdir(parents=True, exist_ok=True)
        np.stack(pictures[:len(lines)]).tofile(args.verdicts / "pictures.rgb")
        (args.verdicts / "verdicts.json").write_text(json.dumps(lines))
    if args.grid:
        per = 12
        pictures += [np.zeros_like(pictures[0])] * (-len(pictures) % per)
        side = refs["rule"]["side"]
        grid = np.stack(pictures).reshape(-1, per, side, side, 3).transpose(0, 2, 1, 3, 4)
        Image.fromarray(grid.reshape(-1, per * side, 3)).save(args.grid)


if __name__ == "__main__":
    main()
