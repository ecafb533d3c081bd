"""Write eval.json: the prompts to judge by, and all numbers the checker needs.

    python references.py --out ../../models/demo/eval.json

Also shows that the checker can be trusted: it looks at true pictures of every
prompt (should find all right) and at pictures of other prompts (should not).
"""

import argparse
import json
from pathlib import Path

import numpy as np

import checker
from captions import GROUND_WORDS, plain_caption
from scene import (COLOURS, GROUNDS, POSITIONS, SHAPES, SIZE, SIZES, TEXTURES, UNITS, Scene,
                   distance_map, draw, drawable, geometry)
from split import held_out

PER_UNIT = SIZE // UNITS      # pixels
RULE = {"side": SIZE, "frame": 3 * PER_UNIT, "reach": PER_UNIT, "least_interior": 12 * PER_UNIT ** 2,
        "mask_cells": 32, "least_overlap": 0.6, "off_centre": 4.0 * PER_UNIT}
PROMPTS = 100
# Small spreads are widened: a generated ground need not match to the last bit.
LEAST_SPREAD = np.array([8.0] * 3 + [5.0] * 3 + [2.0 / PER_UNIT] * 2)


def hidden(ground):
    """Colours the checker does not look for on a ground: no such picture is
    drawn, or, with white clouds, none that it could tell from the ground."""
    return [c for c in COLOURS if not drawable(c, ground) or (c, ground) == ("white", "sky")]


def tones(pixels, count, rng):
    """k-means, a few rounds, on at most 6000 pixels."""
    pixels = np.concatenate(pixels).astype(np.float64)
    pixels = pixels[rng.permutation(len(pixels))[:6000]]
    centres = pixels[rng.permutation(len(pixels))[:count]]
    for _ in range(15):
        near = ((pixels[:, None] - centres) ** 2).sum(-1).argmin(1)
        centres = np.array([pixels[near == i].mean(0) if (near == i).any() else centres[i] for i in range(count)])
    return [[round(float(v), 1) for v in c] for c in centres]


def references():
    rng = np.random.default_rng(77)
    body = {c: [] for c in COLOURS}
    around = {g: [] for g in GROUNDS}
    features = {g: [] for g in GROUNDS}
    for g in GROUNDS:
        for _ in range(48):
            c = COLOURS[rng.integers(10)]
            while not drawable(c, g):
                c = COLOURS[rng.integers(10)]
            s = Scene(SHAPES[rng.integers(6)], c, g, list(POSITIONS)[rng.integers(9)],
                      list(SIZES)[rng.integers(3)], int(rng.integers(1 << 40)))
            p = draw(s)
            d = distance_map(s.shape, *geometry(s)).reshape(SIZE, 2, SIZE, 2).mean((1, 3))
            body[c].append(p[d < -2.4])
            around[g].append(p[d > 7])
            features[g].append(checker.frame_features(p, RULE["frame"]))
    colours = {c: tones(body[c], 4, rng) for c in COLOURS}
    grounds = {}
    for g in GROUNDS:
        f = np.array(features[g])
        grounds[g] = {"mean": np.round(f.mean(0), 2).tolist(),
                      "spread": np.round(np.maximum(f.std(0), LEAST_SPREAD), 2).tolist(),
                      "hides": hidden(g),
                      "tones": tones(around[g], 2 if g.startswith("plain ") else 8, rng)}
    refs = {"rule": dict(RULE), "colours": colours, "grounds": grounds, "shapes": {}, "sizes": {}}
    for shape in SHAPES:
        total = np.zeros((RULE["mask_cells"],) * 2)
        extent = {k: [] for k in SIZES}
        for i in range(30):
            size = list(SIZES)[i % 3]
            p = draw(Scene(shape, "blue", "plain white", "center", size, 9000 + i))
            labels = checker.label_pixels(p, refs, "plain white")
            area = checker.main_region(labels, RULE["reach"])[1]
            box = checker.bounds(area)
            total += checker.small_mask(area, box, RULE["mask_cells"])
            extent[size].append((box[2] - box[0] + box[3] - box[1] + 2) / 2)
        refs["shapes"][shape] = ["".join("#" if v >= 15 else "." for v in row) for row in total]
        # A star loses more of its tips to the rim than a square of its corners,
        # so where small ends and large begins goes by shape.
        small, medium, large = (float(np.mean(extent[k])) for k in SIZES)
        refs["sizes"][shape] = [round((small + medium) / 2, 2), round((medium + large) / 2, 2)]
    return refs


def expected(shape, colour, ground, position, size):
    return {"shape": shape, "colour": colour, "ground": ground,
            "position": list(POSITIONS[position]) if position else None, "size": size}


def true_picture(item, seed):
    """A drawing of what the item asks for; what it leaves open is chosen freely."""
    rng = np.random.default_rng((seed, 5))
    names = {v: k for k, v in POSITIONS.items()}
    position = names[tuple(item["position"])] if item["position"] else list(POSITIONS)[rng.integers(9)]
    size = item["size"] or list(SIZES)[rng.integers(3)]
    return draw(Scene(item["shape"], item["colour"], item["ground"], position, size, 5_000_000 + seed))


def prompts(refs):
    """Held-out combinations that the checker can judge: on true pictures it is
    right 19 times of 20.  (It does not see a white shape before white clouds.)"""
    rng = np.random.default_rng(404)
    items, dropped = [], []
    for shape, colour, ground in held_out():
        if len(items) == PROMPTS:
            break
        item = expected(shape, colour, ground, None, None)
        right = sum(all(checker.verdict(true_picture(item, s), item, refs).values()) for s in range(20))
        if right < 19:
            dropped.append((colour, ground, right))
            continue
        n = len(items)
        position = list(POSITIONS)[rng.integers(9)] if n % 2 == 0 else None
        size = list(SIZES)[rng.integers(3)] if n % 4 < 2 else None
        items.append({"prompt": plain_caption(shape, colour, ground, position, size), "seed": 1000 + n,
                      **expected(shape, colour, ground, position, size)})
    print("left out because hard to judge:", dropped)
    return items


def textures():
    """Prompts for a ground alone: no shape may be found."""
    return [{"prompt": f"a seamless texture of {GROUND_WORDS[ground][0]}", "seed": 3000 + n, "ground": ground}
            for n, ground in enumerate(TEXTURES)]


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--out", type=Path, required=True)
    args = args.parse_args()
    refs = references()
    refs["prompts"] = prompts(refs)
    refs["textures"] = textures()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(refs, indent=1)
    # One reference row or colour per line keeps the file readable.
    import re
    text = re.sub(r"\[\s+((?:-?[\d.]+,\s+)*-?[\d.]+)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
    args.out.write_text(text + "\n")
    right, wrong, many = {}, {}, 5
    for n, item in enumerate(refs["prompts"]):
        for k in range(many):
            for key, ok in checker.verdict(true_picture(item, 100 * n + k), item, refs).items():
                right.setdefault(key, []).append(ok)
            # A picture of some other prompt that shares none of the three.
            others = [o for o in refs["prompts"] if all(o[a] != item[a] for a in ("shape", "colour", "ground"))]
            other = others[(7 * n + k) % len(others)]
            bare = {**item, "position": None, "size": None}
            for key, ok in checker.verdict(true_picture(other, 100 * n + k), bare, refs).items():
                wrong.setdefault(key, []).append(ok)
    print("true pictures: ", {k: f"{100 * np.mean(v):.1f}" for k, v in right.items()})
    print("wrong pictures:", {k: f"{100 * np.mean(v):.1f}" for k, v in wrong.items()})
    bare = [checker.look(draw(Scene(None, None, g, "center", "medium", k)), refs) == {
        "ground": g, "colour": None, "shape": None, "position": None, "size": None}
        for g in TEXTURES for k in range(10)]
    print(f"grounds alone: {100 * np.mean(bare):.1f}")


if __name__ == "__main__":
    main()
