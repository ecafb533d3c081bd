"""How each family's tiny model is spelt in a single file, and what diffusers' own single-file loader reads from it.

`build` spells the folders of `families.py` in the original naming (module by module, by the order in which the original
code builds them), has `from_single_file` load the file, demands that every tensor is the folder's to the bit, and writes
the spelling with the checksums of what was loaded. The file itself is not kept: it can be made again from the spelling.
"""

import tempfile
import zlib
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from common import made_by, write_json

NAMES = ("sd15", "sd21", "sdxl")
ABOUT = (
    "parts: for each folder of the model every tensor of the single file: its name there, and as text how it is made "
    "(copy; conv: a matrix as a 1x1 convolution; stack: matrices on top of each other; transpose), then each tensor of the "
    "folder that goes into it with the crc32 (hex) of the little-endian f32 bytes that from_single_file loaded for it. "
    "Text encoders are named as in their own file, without a leading `text_model.`."
)
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def unet_modules(config):
    """Pairs of module names, (ours, original), in the order of the original constructor."""
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]
    for ours, original in (("time_embedding", "time_embed"), ("add_embedding", "label_emb.0")):
        yield f"{ours}.linear_1", f"{original}.0"
        yield f"{ours}.linear_2", f"{original}.2"
    yield "conv_in", "input_blocks.0.0"
    count = 1
    for level, kind in enumerate(config["down_block_types"]):
        for layer in range(layers):
            yield from resnet(f"down_blocks.{level}.resnets.{layer}", f"input_blocks.{count}.0")
            if "CrossAttn" in kind:
                yield f"down_blocks.{level}.attentions.{layer}", f"input_blocks.{count}.1"
            count += 1
        if level + 1 < levels:
            yield f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{count}.0.op"
            count += 1
    yield from resnet("mid_block.resnets.0", "middle_block.0")
    yield "mid_block.attentions.0", "middle_block.1"
    yield from resnet("mid_block.resnets.1", "middle_block.2")
    count = 0
    for level, kind in enumerate(config["up_block_types"]):
        for layer in range(layers + 1):
            slot = 1
            yield from resnet(f"up_blocks.{level}.resnets.{layer}", f"output_blocks.{count}.0")
            if "CrossAttn" in kind:
                yield f"up_blocks.{level}.attentions.{layer}", f"output_blocks.{count}.1"
                slot = 2
            if layer == layers and level + 1 < levels:
                yield f"up_blocks.{level}.upsamplers.0.conv", f"output_blocks.{count}.{slot}.conv"
            count += 1
    yield "conv_norm_out", "out.0"
    yield "conv_out", "out.2"


def resnet(ours, original):
    for name, old in RESNET.items():
        yield f"{ours}.{name}", f"{original}.{old}"


def vae_modules(config):
    levels = len(config["block_out_channels"])
    for coder in ("encoder", "decoder"):
        yield f"{coder}.conv_in", f"{coder}.conv_in"
        yield f"{coder}.conv_norm_out", f"{coder}.norm_out"
        yield f"{coder}.conv_out", f"{coder}.conv_out"
        for block in (0, 1):
            yield f"{coder}.mid_block.resnets.{block}", f"{coder}.mid.block_{block + 1}"
        for ours, original in (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
            yield f"{coder}.mid_block.attentions.0.{ours}", f"{coder}.mid.attn_1.{original}"
    for level in range(levels):
        for layer in range(config["layers_per_block"] + 1):
            # The original decoder counts its levels from the picture.
            up = levels - 1 - level
            for shortcut, old in ((".conv_shortcut", ".nin_shortcut"), ("", "")):
                yield f"encoder.down_blocks.{level}.resnets.{layer}{shortcut}", f"encoder.down.{level}.block.{layer}{old}"
                yield f"decoder.up_blocks.{level}.resnets.{layer}{shortcut}", f"decoder.up.{up}.block.{layer}{old}"
        yield f"encoder.down_blocks.{level}.downsamplers.0", f"encoder.down.{level}.downsample"
        yield f"decoder.up_blocks.{level}.upsamplers.0", f"decoder.up.{levels - 1 - level}.upsample"
    for name in ("quant_conv", "post_quant_conv"):
        yield name, name


def spell(modules, name):
    """The original name of a tensor."""
    for ours, original in modules:
        if name.startswith(ours + "."):
            return original + name[len(ours):]
    raise KeyError(name)


def open_clip(layers, projection):
    """(original name, how, names of ours) of an OpenCLIP text encoder."""
    yield "positional_embedding", "copy", ["embeddings.position_embedding.weight"]
    yield "token_embedding.weight", "copy", ["embeddings.token_embedding.weight"]
    for kind in ("weight", "bias"):
        yield f"ln_final.{kind}", "copy", [f"final_layer_norm.{kind}"]
        for layer in range(layers):
            ours, original = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
            stacked = [f"{ours}.self_attn.{part}_proj.{kind}" for part in "qkv"]
            yield f"{original}.attn.in_proj_{kind}", "stack", stacked
            for old, new in (
                ("attn.out_proj", "self_attn.out_proj"),
                ("ln_1", "layer_norm1"),
                ("ln_2", "layer_norm2"),
                ("mlp.c_fc", "mlp.fc1"),
                ("mlp.c_proj", "mlp.fc2"),
            ):
                yield f"{original}.{old}.{kind}", "copy", [f"{ours}.{new}.{kind}"]
    if projection:
        yield "text_projection", "transpose", ["text_projection.weight"]


def plain(tensors):
    return {name.removeprefix("text_model."): tensor for name, tensor in tensors.items() if not name.endswith("position_ids")}


def recipe(family, pipeline, parts):
    """For each part, (name in the file, how, names of ours)."""
    unet, vae = list(unet_modules(pipeline.unet.config)), list(vae_modules(pipeline.vae.config))
    rows = {"unet": [], "vae": []}
    for name in parts["unet"]:
        rows["unet"].append(("model.diffusion_model." + spell(unet, name), "copy", [name]))
    for name, tensor in parts["vae"].items():
        how = "conv" if "attentions" in name and tensor.ndim == 2 else "copy"
        rows["vae"].append(("first_stage_model." + spell(vae, name), how, [name]))
    clip = {"sd15": "cond_stage_model.transformer.", "sdxl": "conditioner.embedders.0.transformer."}.get(family)
    if clip:
        rows["text_encoder"] = [(f"{clip}text_model.{name}", "copy", [name]) for name in parts["text_encoder"]]
    opened = {"sd21": ("text_encoder", "cond_stage_model.model."), "sdxl": ("text_encoder_2", "conditioner.embedders.1.model.")}
    if family in opened:
        part, prefix = opened[family]
        layers = getattr(pipeline, part).config.num_hidden_layers
        spelt = open_clip(layers, "text_projection.weight" in parts[part])
        rows[part] = [(prefix + original, how, names) for original, how, names in spelt]
    for part, tensors in parts.items():
        used = sorted(name for _, _, names in rows[part] for name in names)
        assert used == sorted(tensors), (part, set(used) ^ set(tensors))
    return rows


def make(how, tensors):
    if how == "stack":
        return torch.cat(tensors)
    (tensor,) = tensors
    return {"copy": lambda: tensor, "conv": lambda: tensor[:, :, None, None], "transpose": lambda: tensor.T}[how]().contiguous()


def crc(tensor):
    return f"{zlib.crc32(tensor.contiguous().float().numpy().tobytes()):08x}"


def folder_tensors(folder):
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(file))
    return plain(tensors)


def build(output: Path):
    for family in NAMES:
        model = output / family / "model"
        kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
        pipeline = kind.from_pretrained(model, local_files_only=True)
        names = [name for name in ("unet", "vae", "text_encoder", "text_encoder_2") if (model / name).is_dir()]
        parts = {name: folder_tensors(model / name) for name in names}
        rows = recipe(family, pipeline, parts)
        spelt = {
            original: make(how, [parts[part][name] for name in ours])
            for part, entries in rows.items()
            for original, how, ours in entries
        }
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.safetensors"
            save_file({name: tensor.clone() for name, tensor in spelt.items()}, file)
            loaded = kind.from_single_file(str(file), config=str(model), local_files_only=True, torch_dtype=torch.float32)
            read = {name: plain(getattr(loaded, name).state_dict()) for name in names}
        for part, tensors in parts.items():
            for name, tensor in tensors.items():
                assert torch.equal(read[part][name], tensor), (family, part, name)
        write_json(
            output / "single_files" / f"{family}.json",
            {
                "made_by": made_by("single_files.py"),
                "about": ABOUT,
                "parts": {
                    part: {
                        original: " ".join([how, *(f"{name} {crc(read[part][name])}" for name in ours)])
                        for original, how, ours in entries
                    }
                    for part, entries in rows.items()
                },
            },
        )
