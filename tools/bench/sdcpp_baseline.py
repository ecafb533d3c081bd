"""What `sd-worker bench` measures, done by stable-diffusion.cpp's command line program.

Its times are read from its log. One JSON object with the keys of `sd-worker bench --json` goes to standard output.
Needs nothing but Python; `random_checkpoint.py` writes a model for it.
"""

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PROMPT = "a photograph of a lighthouse on a cliff at dusk, waves below, highly detailed"
# Flash attention and direct convolution are what it has to be faster than its defaults.
FASTER = ["--diffusion-fa", "--diffusion-conv-direct", "--vae-conv-direct"]


def main():
    options = parse()
    parts, load = {}, None
    if {"text", "step", "decode"} & set(options.parts):
        # Pictures of one step each, of which the first do not count.
        log = run(options, steps=1, pictures=options.iterations + options.warmup)
        load = seconds(log, r"loading tensors completed, taking ([\d.]+)s")[0]
        measured = {
            # Prompts are encoded once in a process, so that there is no round that does not count.
            "text": ("text_encode", seconds(log, r"get_learned_condition completed, taking ([\d.]+)s")),
            "step": ("step", seconds(log, r"- sampling completed, taking ([\d.]+)s")[options.warmup:]),
            "decode": ("decode", seconds(log, r"latent \d+ decoded, taking ([\d.]+)s")[options.warmup:]),
        }
        parts |= dict(measured[part] for part in options.parts if part in measured)
    if "picture" in options.parts:
        logs = [run(options, options.steps, pictures=1) for _ in range(options.iterations)]
        load = load or seconds(logs[0], r"loading tensors completed, taking ([\d.]+)s")[0]
        parts["picture"] = [seconds(log, r"generate_image completed in ([\d.]+)s")[0] for log in logs]
    print(json.dumps(report(options, parts, load), indent=None if options.json else 2))


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path, help="the program, `sd-cli` (`sd` in older versions)")
    parser.add_argument("--model", type=Path, required=True, help="a folder in the diffusers layout, or a single file")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=-1)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20, help="steps of the part `picture`")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=["text", "step", "decode"])
    parser.add_argument("--flags", choices=["default", "faster"], default="default",
                        help=f"faster: with {' '.join(FASTER)}")
    parser.add_argument("--json", action="store_true", help="print the object on one line")
    return parser.parse_args()


def run(options, steps, pictures):
    """The log of a run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            options.program.resolve(), "--model", options.model, "--prompt", PROMPT,
            "--negative-prompt", "blurry, low quality", "--width", str(options.size), "--height", str(options.size),
            "--steps", str(steps), "--batch-count", str(pictures), "--cfg-scale", "7.5", "--sampling-method", "euler",
            "--seed", "7", "--threads", str(options.threads), "--output", f"{folder}/picture.png",
            *(FASTER if options.flags == "faster" else []),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if done.returncode:
        sys.stderr.write(done.stdout)
        sys.exit(f"{options.program} failed ({done.returncode})")
    return done.stdout


def seconds(log, pattern):
    found = [float(text) for text in re.findall(pattern, log)]
    if not found:
        sys.exit(f"the log has no line like {pattern}:\n{log}")
    return found


def report(options, parts, load):
    medians = {f"{part}_ms": None for part in ["text_encode", "step", "decode", "picture"]}
    medians |= {f"{part}_ms": round(statistics.median(samples) * 1e3, 3) for part, samples in parts.items()}
    return {
        "model": options.model.name,
        "device": "cpu",
        "dtype": "f16",
        "layout": options.flags,
        "threads": options.threads,
        "size": options.size,
        "batch": 1,
        "iterations": options.iterations,
        "picture_steps": options.steps,
        "load_ms": load * 1e3,
        **medians,
        "parts": {part: {"samples_ms": [round(s * 1e3, 3) for s in samples]} for part, samples in parts.items()},
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6,
        "versions": version(options.program),
    }


def version(program):
    done = subprocess.run([program.resolve(), "--version"], capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    return lines[0].strip() if lines else "stable-diffusion.cpp version unknown"


if __name__ == "__main__":
    main()
