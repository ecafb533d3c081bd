"""taesd/*: a tiny AutoencoderTiny in each of its namings, and what it decodes and encodes."""

import shutil

import torch
from diffusers import AutoencoderTiny

import weights
from common import made_by, seeded, write_json, write_tensors

ABOUT = [
    "model: the folder that diffusers saves. original: the same tensors as the original repository names them, decoder and "
    "encoder in files of their own.",
    "latents -> decoded, around -1..1, not clamped; some latents lie beyond 3, where the decoder bends them. image in -1..1 -> "
    "encoded. Latents as the diffusion knows them.",
]


def original(model, part, shift):
    """The original rows of layers: the decoder's has one more in front, which clamps."""
    layers = getattr(model, part).layers.state_dict()
    return {f"{int(name.split('.')[0]) + shift}.{name.split('.', 1)[1]}": tensor.half() for name, tensor in layers.items()}


def build(output):
    folder = output / "taesd"
    shutil.rmtree(folder, ignore_errors=True)
    channels = (6, 6, 6, 6)
    model = AutoencoderTiny(encoder_block_out_channels=channels, decoder_block_out_channels=channels,
                            num_encoder_blocks=(1, 1, 2, 1), num_decoder_blocks=(2, 1, 1, 1)).eval()
    weights.fill(model, "taesd")
    weights.round_to_half(model)
    latents = 2.5 * seeded(700, 2, 4, 5, 7)
    image = torch.tanh(seeded(701, 1, 3, 40, 56))
    tensors = {"latents": latents, "decoded": model.decode(latents).sample, "image": image,
               "encoded": model.encode(image).latents}
    assert latents.abs().max() > 5 and tensors["decoded"].std() > 0.1 and tensors["encoded"].std() > 0.1
    write_tensors(folder / "expected.safetensors", tensors)
    for part, shift in [("decoder", 1), ("encoder", 0)]:
        write_tensors(folder / "original" / f"taesd_{part}.safetensors", original(model, part, shift))
    model.half().save_pretrained(folder / "model", safe_serialization=True)
    write_json(folder / "expected.json", {"made_by": made_by("taesd.py"), "about": ABOUT})
