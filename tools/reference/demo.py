"""What diffusers draws with the demonstration model (`models/demo`), on its own defaults."""

import json
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from common import made_by, write_json

MODEL = Path(__file__).resolve().parents[2] / "models" / "demo"
RUNS = [
    {"name": "circle", "prompt": "a red circle on green grass", "seed": 42},
    {"name": "heart", "prompt": "a large yellow heart on water", "seed": 7},
    {"name": "star", "prompt": "a small blue star in the top left corner on sand", "seed": 1234},
]


def build(folder):
    folder.mkdir(parents=True, exist_ok=True)
    defaults = json.loads((MODEL / "sd-worker.json").read_text())
    pipeline = StableDiffusionPipeline.from_pretrained(MODEL, torch_dtype=torch.float32, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    runs = []
    for run in RUNS:
        size = {"width": defaults["default_width"], "height": defaults["default_height"]}
        image = pipeline(run["prompt"], num_inference_steps=defaults["default_steps"],
                         guidance_scale=defaults["default_guidance_scale"],
                         generator=torch.Generator("cpu").manual_seed(run["seed"]), **size).images[0]
        image.save(folder / f"{run['name']}.png")
        runs.append({**run, "seed": str(run["seed"]), "num_images": 1, "files": [f"{run['name']}.png"]})
    write_json(folder / "runs.json", {
        "made_by": made_by("demo.py"),
        "about": ["Runs of models/demo with its own sampler, steps, guidance and size."],
        "model": "../../models/demo",
        "runs": runs,
    })
