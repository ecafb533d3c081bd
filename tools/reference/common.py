"""What every part of the tool shares: provenance, stable JSON, safetensors with sorted keys, exact f32 text."""

import json
import platform
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

COMMAND = "python tools/reference/make_fixtures.py --output fixtures"


def deterministic():
    """One thread, deterministic kernels, no gradients: the same machine gives the same bytes each time."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float32)


def made_by(part):
    """The provenance that stands in every JSON file. No date and no path: two runs give the same bytes."""
    import diffusers
    import transformers

    return {
        "tool": f"tools/reference/{part}",
        "command": COMMAND,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": "cpu",
        "dtype": "float32",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def f32(values):
    """Numbers that print as the shortest decimal which reads back as exactly the same f32."""
    if isinstance(values, torch.Tensor):
        values = values.detach().to(torch.float32).numpy()
    array = np.asarray(values, dtype=np.float32)
    if array.ndim == 0:
        return _shortest(array[()])
    return [f32(v) for v in array]


def _shortest(value):
    if not np.isfinite(value):
        raise ValueError(f"a fixture may not hold {value}")
    return float(str(value))


def bits(values):
    """The u32 bit pattern of each f32, flat."""
    return torch.as_tensor(values, dtype=torch.float32).flatten().numpy().view(np.uint32).tolist()


def write_json(path: Path, value):
    """Objects are indented, lists of numbers stay on one line: files that people read and git can diff."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_render(value, 0) + "\n", encoding="utf-8")


def _render(value, depth):
    pad, end = " " * (depth + 1), " " * depth
    if isinstance(value, dict) and value:
        rows = [f"{pad}{json.dumps(str(k), ensure_ascii=False)}: {_render(v, depth + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{end}}}"
    if isinstance(value, (list, tuple)) and any(isinstance(v, (dict, list, tuple)) for v in value):
        return "[\n" + ",\n".join(pad + _render(v, depth + 1) for v in value) + f"\n{end}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def write_tensors(path: Path, tensors):
    """safetensors, names sorted, f32 or integers, contiguous."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{path.name}: {name} is not finite")
    save_file({name: tensors[name].detach().contiguous().clone() for name in sorted(tensors)}, str(path),
              metadata={"format": "pt"})
    path.chmod(0o644)


def seeded(seed, *shape):
    """A standard normal tensor from its own generator: an input that no other draw can shift."""
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))
