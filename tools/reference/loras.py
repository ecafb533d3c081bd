"""LoRA and LoCon: small adapters in every naming, and what diffusers makes of them."""

import json
import shutil
import warnings
import zlib

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import families
import runs
from common import made_by, write_json, write_tensors

TEXT_LINEARS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
TRANSFORMER_LINEARS = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
OUTER_LAYERS = ("conv_in", "conv_out", "linear_1", "linear_2")
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "conv", "time_emb_proj", *OUTER_LAYERS)
# So that an adapter changes the picture clearly and does not tear it to pieces.
STRENGTH = 0.5

FILES = {
    "sd15": [
        dict(name="kohya", naming="kohya", unet=TRANSFORMER_LINEARS, text=TEXT_LINEARS, rank=2, alpha=1,
             dtype=torch.float16),
        dict(name="locon", naming="kohya", unet=("conv1", "conv2", "conv_shortcut", "conv", "time_emb_proj"), rank=2,
             alpha=3, dtype=torch.float16),
        dict(name="tucker", naming="kohya", unet=("conv1", "conv2"), rank=3, alpha=2, tucker=True),
        dict(name="diffusers_old", naming="diffusers_old", unet=("to_q", "to_k", "to_v", "to_out.0"),
             text=("q_proj", "out_proj"), rank=2),
        dict(name="peft", naming="peft", unet=("to_q", "to_v", "ff.net.2", "conv_shortcut"), text=("k_proj", "fc2"),
             rank=4, alpha=6, dtype=torch.float16),
    ],
    "sd21": [dict(name="peft", naming="peft", unet=TRANSFORMER_LINEARS, rank=2, dtype=torch.float16)],
    "sdxl": [
        dict(name="kohya_ldm", naming="kohya_ldm", unet=(*TRANSFORMER_LINEARS, *CONVOLUTIONS), text=TEXT_LINEARS,
             text_2=TEXT_LINEARS, rank=1, alpha=0.5, dtype=torch.float16),
        dict(name="diffusers", naming="diffusers", unet=("to_q", "to_k", "to_v", "to_out.0"), text=("q_proj", "v_proj"),
             text_2=("k_proj", "fc1"), rank=3, dtype=torch.bfloat16),
    ],
}
CASES = {
    "sd15": [
        dict(name="kohya", stack=[("kohya", 1.0)], picture=True),
        dict(name="kohya_negative", stack=[("kohya", -0.75)]),
        dict(name="locon", stack=[("locon", 1.0)], picture=True),
        dict(name="tucker", stack=[("tucker", 0.8)]),
        dict(name="diffusers_old", stack=[("diffusers_old", 0.9)]),
        dict(name="peft", stack=[("peft", 0.7)]),
        dict(name="stack", stack=[("kohya", 0.8), ("locon", -0.5), ("peft", 0.6)], picture=True),
    ],
    "sd21": [dict(name="peft", stack=[("peft", 1.0)], picture=True)],
    "sdxl": [
        dict(name="kohya_ldm", stack=[("kohya_ldm", 1.0)], picture=True),
        dict(name="diffusers", stack=[("diffusers", 1.25)]),
        dict(name="stack", stack=[("kohya_ldm", 0.5), ("diffusers", 1.0)], picture=True),
    ],
}
ABOUT = [
    "files: the adapters in loras/. layers: how many of the model they change.",
    "cases: stack is what load_lora_weights and set_adapters got. unet/<case> in loras.safetensors is the output for the "
    "inputs unet/single of expected.safetensors; text/<case>/<n> the states of encoder n (from 1) for encoded prompt 0: SD: "
    "the last hidden state, SDXL: the penultimate; pooled/<case>: SDXL's projected pooled state. They are left out where the "
    "adapters leave the text encoders as they are.",
    "tucker is not read by this diffusers: its convolutions were run as three after each other beside the model's own.",
    "run: the whole picture, where there is one, with the fields of runs.json.",
    "change: the largest difference of 255 from the picture without adapters; the tool refuses 10 or less.",
]


def ldm_names(name):
    """First names of diffusers' UNet layers, counted through from the blocks of the model itself."""
    config = families.UNET[name]
    layers, levels = config["layers_per_block"], len(config["block_out_channels"])
    names = {"conv_in": "input_blocks.0.0", "conv_out": "out.2", "time_embedding.linear_1": "time_embed.0",
             "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
             "add_embedding.linear_2": "label_emb.0.2", "mid_block.resnets.0": "middle_block.0",
             "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2"}
    block = 1
    for level in range(levels):
        for layer in range(layers):
            names[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{block}.0"
            names[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{block}.1"
            block += 1
        names[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{block}.0.op"
        block += 1
    block = 0
    for level in range(levels):
        for layer in range(layers + 1):
            names[f"up_blocks.{level}.resnets.{layer}"] = f"output_blocks.{block}.0"
            names[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{block}.1"
            block += 1
        place = 2 if config["up_block_types"][level].startswith("CrossAttn") else 1
        names[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{block - 1}.{place}.conv"
    return names


LDM_RESNET = {".conv1": ".in_layers.2", ".time_emb_proj": ".emb_layers.1", ".conv2": ".out_layers.3",
              ".conv_shortcut": ".skip_connection"}


def to_ldm(name, module):
    for diffusers, first in ldm_names(name).items():
        if module == diffusers or module.startswith(diffusers + "."):
            module = first + module[len(diffusers):]
            break
    if "blocks" in module or "middle" in module:
        for diffusers, first in LDM_RESNET.items():
            if module.endswith(diffusers):
                return module[:-len(diffusers)] + first
    return module


def text_name(module):
    """The name under transformers 4, which all adapters in the world have."""
    return "text_model." + module if module.startswith("encoder.") else module


def file_keys(name, naming, part, module):
    """The names of down, up, mid and alpha of one module."""
    if naming.startswith("kohya"):
        prefix = {"unet": "lora_unet_", "text": "lora_te_" if name != "sdxl" else "lora_te1_", "text_2": "lora_te2_"}[part]
        if part == "unet" and naming == "kohya_ldm":
            module = to_ldm(name, module)
        stem = prefix + (module if part == "unet" else text_name(module)).replace(".", "_")
        return [f"{stem}.lora_{role}.weight" for role in ("down", "up", "mid")] + [f"{stem}.alpha"]
    prefix = {"unet": "unet.", "text": "text_encoder.", "text_2": "text_encoder_2."}[part]
    module = prefix + (module if part == "unet" else text_name(module))
    if naming == "peft":
        return [f"{module}.lora_A.weight", f"{module}.lora_B.weight", None, None]
    if naming == "diffusers":
        kind = "lora" if part == "unet" else "lora_linear_layer"
        return [f"{module}.{kind}.down.weight", f"{module}.{kind}.up.weight", None, None]
    head, _, last = module.rpartition(".") if not module.endswith("to_out.0") else (module[:-len(".to_out.0")], "", "to_out")
    last = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}.get(last, last)
    head = f"{head}.processor" if part == "unet" else head
    return [f"{head}.{last}_lora.down.weight", f"{head}.{last}_lora.up.weight", None, None]


def normal(salt, *shape):
    source = np.random.default_rng(zlib.crc32(salt.encode()))
    return torch.from_numpy(source.standard_normal(shape).astype(np.float32))


def chosen(model, endings):
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    for module, layer in model.named_modules():
        if isinstance(layer, kinds) and any(module == e or module.endswith("." + e) for e in endings):
            yield module, layer


def make(name, pipe, spec, folder):
    """Writes one adapter file; tells how many layers it changes, and of the Tucker form what they compute."""
    tensors, tucker, layers = {}, {}, 0
    parts = {"unet": pipe.unet, "text": pipe.text_encoder, "text_2": getattr(pipe, "text_encoder_2", None)}
    for part, model in parts.items():
        for module, layer in chosen(model, spec.get(part, ())) if model is not None else ():
            outputs, *row = layer.weight.shape
            rank = min(spec["rank"], outputs)
            salt = f"{name}/{spec['name']}/{part}/{module}"
            down_row = [row[0], 1, 1] if spec.get("tucker") else row
            down = normal(f"{salt}/down", rank, *down_row) / np.sqrt(np.prod(down_row))
            up = normal(f"{salt}/up", outputs, rank, *[1] * (len(row) - 1)) * STRENGTH / np.sqrt(rank)
            keys = file_keys(name, spec["naming"], part, module)
            tensors |= {keys[0]: down, keys[1]: up}
            if spec.get("tucker"):
                tensors[keys[2]] = normal(f"{salt}/mid", rank, rank, *row[1:]) / np.sqrt(rank * 9)
                # Single precision in the file, so these are what is in it.
                tucker[module] = (down, tensors[keys[2]], up, spec["alpha"] / rank)
            if spec["naming"].startswith("kohya"):
                tensors[keys[3]] = torch.tensor(float(spec["alpha"]))
            layers += 1
    tensors = {key: tensor.to(spec.get("dtype", torch.float32)) for key, tensor in tensors.items()}
    metadata = {"format": "pt"}
    if spec["naming"] == "peft" and "alpha" in spec:
        metadata["lora_adapter_metadata"] = json.dumps(peft_settings(tensors, spec), sort_keys=True)
    path = folder / f"{spec['name']}.safetensors"
    save_file({key: tensors[key].contiguous() for key in sorted(tensors)}, str(path), metadata=metadata)
    path.chmod(0o644)
    return layers, tucker


def peft_settings(tensors, spec):
    """PEFT's configuration as diffusers' save_lora_weights puts it into the header."""
    settings = {}
    for part in ("unet", "text_encoder", "text_encoder_2"):
        modules = sorted({key.removeprefix(part + ".").rsplit(".lora_", 1)[0] for key in tensors
                          if key.startswith(part + ".")})
        if modules:
            modules = [module.removeprefix("text_model.") for module in modules]
            settings |= {f"{part}.r": spec["rank"], f"{part}.lora_alpha": spec["alpha"],
                         f"{part}.target_modules": modules, f"{part}.peft_type": "LORA"}
    return settings


def add_tucker(pipe, module, down, mid, up, factor):
    """Runs the three convolutions of a Tucker adapter beside the model's own."""
    layer = pipe.unet.get_submodule(module)

    def beside(_layer, inputs, output):
        inner = torch.nn.functional.conv2d(inputs[0], down)
        inner = torch.nn.functional.conv2d(inner, mid, stride=layer.stride, padding=layer.padding)
        return output + factor * torch.nn.functional.conv2d(inner, up)
    return layer.register_forward_hook(beside)


def injected(pipe):
    """How many layers PEFT has adapters in."""
    models = [pipe.unet, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)]
    return sum("lora_A" in name and name.endswith(".weight") for model in models if model is not None
               for name, _ in model.named_parameters())


def outputs(name, pipe, case, expected):
    tensors = {}
    inputs = {key: expected[f"unet/single/{key}"] for key in ("sample", "timestep", "context")}
    added = None
    if name == "sdxl":
        added = {key: expected[f"unet/single/{key}"] for key in ("text_embeds", "time_ids")}
    tensors[f"unet/{case}"] = pipe.unet(inputs["sample"], inputs["timestep"], added_cond_kwargs=added,
                                        encoder_hidden_states=inputs["context"], return_dict=False)[0]
    prompt = "a photo of a red circle on green grass"
    for number, suffix in enumerate(["", "_2"] if name == "sdxl" else [""], start=1):
        tokenizer, encoder = getattr(pipe, "tokenizer" + suffix), getattr(pipe, "text_encoder" + suffix)
        ids = tokenizer(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        states = encoder(ids, output_hidden_states=True)
        tensors[f"text/{case}/{number}"] = (states.hidden_states[-2] if name == "sdxl" else states.last_hidden_state)[0]
        if number == 2:
            tensors[f"pooled/{case}"] = states.text_embeds[0]
    return tensors


def build(name, folder):
    warnings.filterwarnings("ignore")
    shutil.rmtree(folder / "loras", ignore_errors=True)
    (folder / "loras").mkdir(parents=True)
    pipe = families.load(name, folder / "model")
    config = pipe.scheduler.config
    made = {spec["name"]: make(name, pipe, spec, folder / "loras") for spec in FILES[name]}
    expected = load_file(folder / "expected.safetensors")
    side = 48 if name == "sd21" else 64
    spec = runs.run("lora", width=side, height=side, steps=4, negative_prompt=runs.LOW)
    plain = runs.pixels(pipe, config, spec)
    base = outputs(name, pipe, "base", expected)
    rows, tensors = [], {}
    for case in CASES[name]:
        pipe, hooks = families.load(name, folder / "model"), []
        for file, scale in case["stack"]:
            layers, tucker = made[file]
            if tucker:
                hooks += [add_tucker(pipe, module, *parts[:3], scale * parts[3]) for module, parts in tucker.items()]
            else:
                pipe.load_lora_weights(folder / "loras", weight_name=f"{file}.safetensors", adapter_name=file)
        loaded = [(file, scale) for file, scale in case["stack"] if not made[file][1]]
        if loaded:
            pipe.set_adapters([file for file, _ in loaded], [scale for _, scale in loaded])
            assert injected(pipe) == sum(made[file][0] for file, _ in loaded), f"{case['name']}: layers were left out"
        found = outputs(name, pipe, case["name"], expected)
        if not any("text" in spec for spec in FILES[name] if spec["name"] in dict(case["stack"])):
            found = {key: tensor for key, tensor in found.items() if key.startswith("unet")}
        for key, tensor in found.items():
            before = base[key.replace(case["name"], "base")]
            assert (tensor - before).abs().max() > 0.01, f"{key} does not change"
        tensors |= found
        row = {"name": case["name"], "stack": [{"file": file, "scale": scale} for file, scale in case["stack"]]}
        if case.get("picture"):
            images = runs.generate(pipe, config, spec)[0]
            file = f"loras/{case['name']}.png"
            images[0].save(folder / file, optimize=True)
            change = int(np.abs(runs.as_array(images) - plain).max())
            assert change > 10, f"{case['name']}: changes the picture by {change} of 255 only"
            row |= {"run": {**spec, "seed": str(spec["seed"]), "name": case["name"], "files": [file],
                            "headroom": runs.headroom(pipe, config, spec, images)}, "change": change}
        rows.append(row)
    write_tensors(folder / "loras.safetensors", tensors)
    files = [{"name": spec["name"], "layers": made[spec["name"]][0]} for spec in FILES[name]]
    write_json(folder / "loras.json", {"made_by": {**made_by("loras.py"), "peft": peft_version()}, "about": ABOUT,
                                       "model": "model", "files": files, "cases": rows})


def peft_version():
    import peft

    return peft.__version__
