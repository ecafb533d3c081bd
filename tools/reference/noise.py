"""The noise source: torch.Generator("cpu") and torch.randn, bit for bit."""

import os
import subprocess
import sys
import zlib

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor

from common import bits, f32, made_by, write_json

SEEDS = [0, 1, 42, 1234567890123, 2**32 - 1, 2**32, 2**63, 2**64 - 1]
SHAPES = [[1], [2], [15], [16], [17], [23], [31], [32], [33], [1, 4, 8, 8], [1, 4, 64, 64]]
EVERY_SHAPE = (0, 42, 1234567890123)  # seeds drawn in every shape; the others in a few
FEW_SHAPES = [[1], [15], [16], [23], [1, 4, 8, 8]]
SEQUENCES = {
    "large_then_small": [[1, 4, 8, 8], [3], [16], [1], [1, 4, 8, 8]],
    "odd_small_keeps_a_value": [[1], [1], [3], [2], [16], [1]],
    "waiting_value_survives_a_large_draw": [[1], [16], [1]],
    "remainders": [[17], [17], [23], [5], [31]],
}
EDGE = 32  # values kept from each end of a large tensor
WORDS = 700  # crosses one refill of the 624-word state

CAPABILITY_PROBE = """
import torch
for n in (15, 16, 16384):
    t = torch.randn(n, generator=torch.Generator().manual_seed(42))
    print(torch.backends.cpu.get_cpu_capability(), n, ",".join(str(v) for v in t.view(torch.int32).tolist()))
"""


def generator(seed):
    return torch.Generator("cpu").manual_seed(seed)


def record(tensor):
    """All values of a small tensor; both ends, an f64 sum and a CRC-32 of the little-endian bytes of any."""
    flat = tensor.flatten()
    entry = {
        "shape": list(tensor.shape),
        "sum_f64": float(flat.double().sum()),
        "crc32": zlib.crc32(flat.numpy().astype("<f4").tobytes()),
    }
    if flat.numel() <= 4 * EDGE:
        return entry | {"values": f32(flat), "bits": bits(flat)}
    return entry | {"first": f32(flat[:EDGE]), "first_bits": bits(flat[:EDGE]),
                    "last": f32(flat[-EDGE:]), "last_bits": bits(flat[-EDGE:])}


def raw_words(seed, count):
    """The 32-bit outputs of mt19937. numpy gives them, torch (31 of the 32 bits) must agree."""
    state = np.random.MT19937()
    state._legacy_seeding(seed & 0xFFFFFFFF)
    words = np.random.Generator(state).integers(0, 2**32, size=count, dtype=np.uint32)
    torch_words = torch.empty(count, dtype=torch.int32).random_(generator=generator(seed)).numpy()
    if not np.array_equal(words & 0x7FFFFFFF, torch_words.view(np.uint32)):
        raise AssertionError(f"numpy and torch disagree on the words of seed {seed}")
    return words.tolist()


def sequence(seed, shapes):
    source = generator(seed)
    return {"seed": str(seed), "draws": [record(torch.randn(shape, generator=source)) for shape in shapes]}


def check_waiting_value():
    source, pair = generator(42), torch.randn(2, generator=generator(42))
    first, _, last = torch.randn(1, generator=source), torch.randn(16, generator=source), torch.randn(1, generator=source)
    assert torch.equal(torch.cat([first, last]), pair), "the second value of a pair should wait across a large draw"


def batches():
    """What diffusers' randn_tensor does with a batch: one generator draws it whole, a list draws each image alone."""
    shape = (2, 4, 8, 8)
    one = randn_tensor(shape, generator=generator(42), device=torch.device("cpu"), dtype=torch.float32)
    several = randn_tensor(shape, generator=[generator(42), generator(43)], device=torch.device("cpu"),
                           dtype=torch.float32)
    alone = torch.randn((1, 4, 8, 8), generator=generator(43))
    assert torch.equal(several[1:], alone)
    assert torch.equal(one[:1], several[:1]) and not torch.equal(one[1:], several[1:])
    # fewer than 16 values, or a remainder, make the first image of a shared draw differ as well
    small = randn_tensor((2, 1, 3, 3), generator=generator(42), device=torch.device("cpu"), dtype=torch.float32)
    return {
        "rule": "image k of a batch is drawn from its own generator seeded with seed + k, in shape (1, C, H, W); the "
                "list form below. The one-generator form is what diffusers does when it is given a single generator.",
        "one_generator_seed_42": record(one),
        "list_of_generators_seeds_42_43": record(several),
        "one_generator_seed_42_shape_2_1_3_3": record(small),
    }


def capabilities():
    """torch has a scalar and a vector Box-Muller for 16 values or more; they differ in the last bits."""
    outputs = {}
    for name in ("default", "avx2", "avx512"):
        run = subprocess.run([sys.executable, "-c", CAPABILITY_PROBE], capture_output=True, text=True, check=True,
                             env=os.environ | {"ATEN_CPU_CAPABILITY": name})
        for line in run.stdout.splitlines():
            capability, count, values = line.split()
            outputs[(capability, count)] = np.array(values.split(","), dtype=np.int64).astype(np.int32)
    rows = {}
    for (capability, count), words in outputs.items():
        base = outputs[("DEFAULT", count)].view(np.float32)
        difference = np.abs(words.view(np.float32).astype(np.float64) - base.astype(np.float64))
        rows.setdefault(capability, {})[f"seed_42_n_{count}"] = {
            "crc32": zlib.crc32(words.astype("<i4").tobytes()),
            "max_abs_difference_from_DEFAULT": float(difference.max()),
            "values_that_differ_from_DEFAULT": int((difference > 0).sum()),
        }
    return rows


def build(output):
    check_waiting_value()
    write_json(output / "noise.json", {
        "made_by": made_by("noise.py"),
        "about": [
            "torch.randn(shape, generator=torch.Generator('cpu').manual_seed(seed)), float32.",
            "Seeds are strings (they reach 2**64 - 1). Only the low 32 bits seed the mt19937.",
            "Fewer than 16 values: one f64 Box-Muller pair per two values, 53-bit uniforms of two words each; the "
            "second value of a pair waits in the generator for the next small draw, across tensors.",
            "16 values or more: 24-bit uniforms, one word each, filled into the tensor; then blocks of 16 values take "
            "u1 from the first 8 and u2 from the last 8. When the count is no multiple of 16 the last 16 values are "
            "drawn again from 16 fresh words. A value that waits from a small draw is neither used nor dropped.",
            "crc32 is over the little-endian f32 bytes and holds on a CPU with AVX2 (see cpu_capability); the scalar "
            "path differs in the last bits, see cpu_paths. Compare values at 1e-6 unless the same path is copied.",
        ],
        "words": [{"seed": str(seed), "u32": raw_words(seed, WORDS if seed == 42 else 40)} for seed in SEEDS],
        "draws": [{"seed": str(seed), **record(torch.randn(shape, generator=generator(seed)))}
                  for seed in SEEDS for shape in (SHAPES if seed in EVERY_SHAPE else FEW_SHAPES)],
        "sequences": {name: sequence(42, shapes) for name, shapes in SEQUENCES.items()},
        "batches": batches(),
        "cpu_paths": capabilities(),
    })
