"""Makes the committed fixtures: tiny models, and what diffusers computes with them.

    python tools/reference/make_fixtures.py --output fixtures [--only PARTS]

PARTS are noise, schedulers, solvers, sd15, sd21, sdxl, single_files, demo, preprocess, pictures, taesd, upscalers, refiner,
few_steps, brownian, mask_blur, with commas between them.
"""

import argparse
import os
import shutil
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", DIFFUSERS_VERBOSITY="error",
                  HF_HUB_DISABLE_PROGRESS_BARS="1")

import brownian
import components
import controls
import demo
import families
import few_steps
import hires
import inpaints
import loras
import mask_blur
import noise
import pictures
import preprocess
import prompts
import refiner
import runs
import schedulers
import seamless
import single_files
import solver_runs
import solvers
import taesd
import transforms
import upscalers
from common import deterministic

# Those that read what others made come after them.
PARTS = ["noise", "schedulers", "solvers", *families.NAMES, "single_files", "demo", "preprocess", "pictures", "taesd",
         "upscalers", "refiner", "few_steps", "brownian", "mask_blur"]


def build_family(name, output):
    folder = output / name
    shutil.rmtree(folder, ignore_errors=True)
    families.build(name, folder)
    components.build(name, folder)
    runs.build(name, folder)
    transforms.build(name, folder)
    inpaints.build(name, folder)
    seamless.build(name, folder)
    hires.build(name, folder)
    solver_runs.build(name, folder)
    prompts.build(name, folder)
    controls.build(name, folder)
    loras.build(name, folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder that receives the fixtures")
    parser.add_argument("--only", default=",".join(PARTS), help=f"comma-separated parts: {', '.join(PARTS)}")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    unknown = sorted(set(chosen) - set(PARTS))
    if unknown:
        parser.error(f"unknown parts: {', '.join(unknown)}")

    deterministic()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for part in chosen:
        print(f"{part} ...", flush=True)
        if part == "noise":
            noise.build(arguments.output)
        elif part == "schedulers":
            schedulers.build(arguments.output)
        elif part == "single_files":
            single_files.build(arguments.output)
        elif part == "solvers":
            solvers.build(arguments.output)
        elif part == "demo":
            demo.build(arguments.output / "demo")
        elif part == "pictures":
            pictures.build(arguments.output)
        elif part == "taesd":
            taesd.build(arguments.output)
        elif part == "upscalers":
            upscalers.build(arguments.output)
        elif part == "brownian":
            brownian.build(arguments.output)
        elif part == "few_steps":
            few_steps.build(arguments.output)
        elif part == "refiner":
            refiner.build(arguments.output)
        elif part == "mask_blur":
            mask_blur.build(arguments.output / "mask_blur")
        elif part == "preprocess":
            preprocess.build(arguments.output / "preprocess")
        else:
            build_family(part, arguments.output)


if __name__ == "__main__":
    main()
