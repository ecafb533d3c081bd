"""Which scenes exist, which are held out, and which scenes training draws.

Held out are whole (shape, colour, ground) combinations.  Each single shape,
colour and ground stays in training many times over, so a held-out prompt asks
for known parts in a combination that was never seen.
"""

import numpy as np

from scene import COLOURS, GROUNDS, POSITIONS, SHAPES, SIZES, Scene, drawable

HELD_OUT_SHARE = 0.1


def combinations():
    return [(s, c, g) for s in SHAPES for c in COLOURS for g in GROUNDS if drawable(c, g)]


def held_out():
    """The combinations that training must not see, in a fixed random order."""
    every = combinations()
    order = np.random.default_rng(20240611).permutation(len(every))
    return [every[i] for i in order[: int(len(every) * HELD_OUT_SHARE)]]


def training_scene(index, allowed):
    """Scene number `index` of the endless training stream.

    Textures get more pictures than plain grounds because they are harder, and
    the middle and the larger sizes get more because prompts that name neither
    position nor size then lead to the better-looking pictures.  One picture in
    twelve is a ground alone.
    """
    rng = np.random.default_rng((7, index))
    if index % 12 == 11:
        return Scene(None, None, GROUNDS[index // 12 % len(GROUNDS)], "center", "medium", 1_000_000 + index)
    while True:
        shape, colour, ground = allowed[rng.integers(len(allowed))]
        if not ground.startswith("plain ") or rng.random() < 0.55:
            break
    position = "center" if rng.random() < 0.4 else list(POSITIONS)[rng.integers(9)]
    size = ["small", "medium", "large"][rng.choice(3, p=[0.22, 0.36, 0.42])]
    return Scene(shape, colour, ground, position, size, 1_000_000 + index)


def training_combinations():
    out = set(held_out())
    return [c for c in combinations() if c not in out]


assert list(SIZES) == ["small", "medium", "large"]
