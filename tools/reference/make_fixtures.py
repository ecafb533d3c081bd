"""Makes the committed fixtures: tiny models, and what diffusers computes with them.

    python tools/reference/make_fixtures.py --output fixtures [--only noise,schedulers]
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

import noise
import schedulers
from common import deterministic

PARTS = ["noise", "schedulers"]


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
        else:
            schedulers.build(arguments.output)


if __name__ == "__main__":
    main()
