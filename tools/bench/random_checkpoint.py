"""Writes a model folder in the diffusers layout: the shapes of a published model, random weights, a made-up vocabulary.

For programs that cannot make up a model by themselves, and to measure loading: sd-worker, diffusers and
stable-diffusion.cpp read it.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

import shapes

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
CLASSES = {"sd15": "StableDiffusionPipeline", "sd21": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("--random", choices=list(shapes.FAMILIES), default="sd15")
    parser.add_argument("--dtype", choices=list(DTYPES), default="f16", help="number format of the files")
    options = parser.parse_args()
    dtype, folder = DTYPES[options.dtype], options.output

    index = {"_class_name": CLASSES[options.random], "force_zeros_for_empty_prompt": options.random == "sdxl"}
    for number, encoder in enumerate(shapes.text_encoders(options.random, dtype), start=1):
        suffix = "" if number == 1 else f"_{number}"
        config = encoder.config.to_diff_dict() | {"architectures": [type(encoder).__name__]}
        save(folder / f"text_encoder{suffix}", "model", text_names(encoder.state_dict()), config)
        write_tokenizer(folder / f"tokenizer{suffix}")
        index[f"text_encoder{suffix}"] = ["transformers", type(encoder).__name__]
        index[f"tokenizer{suffix}"] = ["transformers", "CLIPTokenizer"]
    for part, model in [("unet", shapes.unet), ("vae", shapes.vae)]:
        model = model(options.random, dtype)
        save(folder / part, "diffusion_pytorch_model", model.state_dict(), dict(model.config))
        index[part] = ["diffusers", type(model).__name__]
    scheduler = shapes.scheduler(options.random)
    scheduler.save_pretrained(folder / "scheduler")
    index["scheduler"] = ["diffusers", type(scheduler).__name__]
    write_json(folder / "model_index.json", index)


def save(folder, stem, tensors, config):
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items() if not name.endswith("position_ids")}
    save_file(tensors, folder / f"{stem}.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", config)


def text_names(tensors):
    """The names that checkpoints on the hub have, whatever this version of transformers calls its modules."""
    known = ("text_model.", "text_projection.")
    return {name if name.startswith(known) else f"text_model.{name}": tensor for name, tensor in tensors.items()}


def write_tokenizer(folder):
    """CLIP's 256 letters, each also at the end of a word, and pairs of letters up to its 49408 tokens."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    letters = [chr(byte) for byte in plain] + [chr(256 + index) for index in range(256 - len(plain))]
    pairs = [(first, second) for first in letters for second in letters][: 49408 - 2 * 256 - 2]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(first + second for first, second in pairs)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "vocab.json", {token: number for number, token in enumerate(tokens)})
    merges = ["#version: 0.2", *(f"{first} {second}" for first, second in pairs)]
    (folder / "merges.txt").write_text("\n".join(merges) + "\n")
    end = "<|endoftext|>"
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True,
        "bos_token": "<|startoftext|>", "eos_token": end, "unk_token": end, "pad_token": end,
    })


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, default=list) + "\n")


if __name__ == "__main__":
    main()
