"""upscalers/*: tiny upscaling networks in every naming, and what they make of a picture.

The network is written down here from the papers (ESRGAN, Wang and others 2018, section 3.1; Real-ESRGAN, Wang and others
2021, section 3.4 for the pixel-unshuffle): it shares no code with what is tested.
"""

import shutil

import torch
import torch.nn.functional as F

import weights
from common import made_by, seeded, write_json, write_tensors

FEATURES, GROWTH = 6, 3
HEIGHT, WIDTH = 12, 20

ABOUT = [
    "One file of weights (f16) per network. image (1, 3, 12, 20) in 0..1 -> output, not clamped.",
    "scale: by how much it enlarges.",
]


def conv(inputs, outputs):
    return torch.nn.Conv2d(inputs, outputs, 3, padding=1)


class Dense(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for number in range(1, 6):
            outputs = FEATURES if number == 5 else GROWTH
            setattr(self, f"conv{number}", conv(FEATURES + (number - 1) * GROWTH, outputs))

    def forward(self, x):
        seen = [x]
        for number in range(1, 5):
            seen.append(F.leaky_relu(getattr(self, f"conv{number}")(torch.cat(seen, dim=1)), 0.2))
        return x + 0.2 * self.conv5(torch.cat(seen, dim=1))


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = Dense(), Dense(), Dense()

    def forward(self, x):
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))


class Network(torch.nn.Module):
    def __init__(self, doublings, unshuffle, blocks):
        super().__init__()
        self.unshuffle, self.doublings = unshuffle, doublings
        self.conv_first = conv(3 * unshuffle**2, FEATURES)
        self.body = torch.nn.Sequential(*[Block() for _ in range(blocks)])
        self.conv_body = conv(FEATURES, FEATURES)
        for step in range(1, doublings + 1):
            setattr(self, f"conv_up{step}", conv(FEATURES, FEATURES))
        self.conv_hr, self.conv_last = conv(FEATURES, FEATURES), conv(FEATURES, 3)

    def forward(self, x):
        first = self.conv_first(F.pixel_unshuffle(x, self.unshuffle))
        x = first + self.conv_body(self.body(first))
        for step in range(1, self.doublings + 1):
            x = F.leaky_relu(getattr(self, f"conv_up{step}")(F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))


def trunk(name):
    """The second form of ESRGAN."""
    for ours, theirs in [("conv_body", "trunk_conv"), ("conv_up", "upconv"), ("conv_hr", "HRconv"), ("body.", "RRDB_trunk."),
                         ("rdb", "RDB")]:
        name = name.replace(ours, theirs)
    return name


def numbered(doublings, blocks):
    """The first form: the numbers of a row of layers."""
    ends = {"conv_first": "model.0", "conv_body": f"model.1.sub.{blocks}", "conv_hr": f"model.{2 + 3 * doublings}",
            "conv_last": f"model.{4 + 3 * doublings}"}
    ends |= {f"conv_up{step}": f"model.{3 * step}" for step in range(1, doublings + 1)}

    def rename(name):
        layer, tensor = name.rsplit(".", 1)
        if layer in ends:
            return f"{ends[layer]}.{tensor}"
        _, block, part, inner = layer.split(".")
        return f"model.1.sub.{block}.{part.upper()}.{inner}.0.{tensor}"

    return rename


NETWORKS = {
    # name: doublings, side of the squares, blocks, naming
    "basic_4x": (2, 1, 2, lambda name: name),
    "basic_2x": (2, 2, 1, lambda name: name),
    "basic_1x": (2, 4, 1, lambda name: name),
    "trunk_4x": (2, 1, 1, trunk),
    "numbered_4x": (2, 1, 2, numbered(2, 2)),
    "numbered_2x": (1, 1, 1, numbered(1, 1)),
    "numbered_1x": (0, 1, 1, numbered(0, 1)),
}


def build(output):
    folder = output / "upscalers"
    shutil.rmtree(folder, ignore_errors=True)
    image = torch.sigmoid(2 * seeded(600, 1, 3, HEIGHT, WIDTH))
    tensors, rows = {"image": image}, {}
    for name, (doublings, unshuffle, blocks, rename) in NETWORKS.items():
        network = Network(doublings, unshuffle, blocks).eval()
        weights.fill(network, f"upscalers/{name}", {"conv5": 3.0, "conv_last": 0.5}.items())
        weights.round_to_half(network)
        write_tensors(folder / f"{name}.safetensors", {rename(key): value.half() for key, value in network.state_dict().items()})
        tensors[name] = network(image)
        without = [block.register_forward_hook(lambda _, inputs, __: inputs[0]) for block in network.body]
        assert (network(image) - tensors[name]).abs().max() > 1e-2, f"{name}: its blocks do not matter"
        for hook in without:
            hook.remove()
        rows[name] = {"scale": tensors[name].shape[-1] // WIDTH, "blocks": blocks}
    write_tensors(folder / "expected.safetensors", tensors)
    write_json(folder / "expected.json", {"made_by": made_by("upscalers.py"), "about": ABOUT, "networks": rows})
