"""Tells what a 64x64 picture shows, from pixels alone.

Everything it compares with stands in eval.json (see references.py), so that
the same rule can be written again in another language without drawing code.
The README gives the rule in words.
"""

import numpy as np

SIDE = 64


def frame_features(picture, width):
    """Mean and spread of each channel in the outer frame, and its roughness."""
    p = picture.astype(np.float64)
    keep = np.ones((SIDE, SIDE), bool)
    keep[width:-width, width:-width] = False
    ring = p[keep]
    grey = p.mean(2)
    right = np.abs(grey[:, 1:] - grey[:, :-1])[keep[:, 1:] & keep[:, :-1]]
    down = np.abs(grey[1:] - grey[:-1])[keep[1:] & keep[:-1]]
    return np.concatenate([ring.mean(0), ring.std(0), [right.mean(), down.mean()]])


def name_ground(features, refs):
    def cost(g):
        z = (features - np.array(g["mean"])) / np.array(g["spread"])
        return float((z * z).sum() + 2 * np.log(g["spread"]).sum())
    return min(refs["grounds"], key=lambda name: cost(refs["grounds"][name]))


def label_pixels(picture, refs, ground):
    """Index of each pixel's colour, or -1 where it looks like the ground."""
    tones, owner = [], []
    for i, name in enumerate(refs["colours"]):
        if name in refs["grounds"][ground]["hides"]:
            continue  # this colour cannot be told from the ground
        tones += refs["colours"][name]
        owner += [i] * len(refs["colours"][name])
    tones += refs["grounds"][ground]["tones"]
    owner += [-1] * len(refs["grounds"][ground]["tones"])
    d = ((picture[:, :, None, :].astype(np.float64) - np.array(tones)) ** 2).sum(-1)
    return np.array(owner)[d.argmin(-1)]


def regions(labels):
    """Connected areas (up, down, left, right) of one colour, ground left out."""
    seen = labels < 0
    for y in range(SIDE):
        for x in range(SIDE):
            if seen[y, x]:
                continue
            colour, stack, area = labels[y, x], [(y, x)], []
            seen[y, x] = True
            while stack:
                a, b = stack.pop()
                area.append((a, b))
                for c, d in ((a - 1, b), (a + 1, b), (a, b - 1), (a, b + 1)):
                    if 0 <= c < SIDE and 0 <= d < SIDE and not seen[c, d] and labels[c, d] == colour:
                        seen[c, d] = True
                        stack.append((c, d))
            yield colour, area


def interior(area):
    """Pixels whose four neighbours belong too: thin lines count for nothing."""
    own = set(area)
    return sum(all(q in own for q in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))) for y, x in area)


def small_mask(area, box, cells):
    """The area, holes filled, resampled so that its bounding box fills cells x cells."""
    top, left, bottom, right = box
    own = set(area)
    outside, stack = set(), []
    ring = [(y, x) for y in range(top - 1, bottom + 2) for x in range(left - 1, right + 2)
            if y in (top - 1, bottom + 1) or x in (left - 1, right + 1)]
    for q in ring:
        outside.add(q); stack.append(q)
    while stack:
        y, x = stack.pop()
        for c, d in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if top <= c <= bottom and left <= d <= right and (c, d) not in own and (c, d) not in outside:
                outside.add((c, d)); stack.append((c, d))
    high, wide = bottom - top + 1, right - left + 1
    out = np.zeros((cells, cells), bool)
    for i in range(cells):
        for j in range(cells):
            y = top + int((i + 0.5) * high / cells)
            x = left + int((j + 0.5) * wide / cells)
            out[i, j] = (y, x) not in outside
    return out


def look(picture, refs):
    """What the picture shows: ground, and colour, shape, position and size."""
    rule = refs["rule"]
    seen = {"ground": name_ground(frame_features(picture, rule["frame"]), refs),
            "colour": None, "shape": None, "position": None, "size": None}
    labels = label_pixels(picture, refs, seen["ground"])
    best, inner = None, 0
    for colour, area in regions(labels):
        n = interior(area)
        if n > inner:
            best, inner = (colour, area), n
    if inner < rule["least_interior"]:
        return seen
    colour, area = best
    seen["colour"] = list(refs["colours"])[colour]
    ys, xs = [y for y, _ in area], [x for _, x in area]
    top, left, bottom, right = min(ys), min(xs), max(ys), max(xs)
    mask = small_mask(area, (top, left, bottom, right), rule["mask_cells"])

    def overlap(rows):
        ref = np.array([[c == "#" for c in row] for row in rows])
        return (mask & ref).sum() / (mask | ref).sum()
    scores = {s: overlap(rows) for s, rows in refs["shapes"].items()}
    shape = max(scores, key=scores.get)
    if scores[shape] >= rule["least_overlap"]:
        seen["shape"] = shape

    def side(low, high):
        off = (low + high + 1) / 2 - SIDE / 2
        return 0 if abs(off) <= rule["off_centre"] else (1 if off > 0 else -1)
    seen["position"] = [side(left, right), side(top, bottom)]
    extent = ((right - left + 1) + (bottom - top + 1)) / 2
    small_below, large_from = refs["sizes"][shape]
    seen["size"] = "small" if extent < small_below else "medium" if extent < large_from else "large"
    return seen


def verdict(picture, item, refs):
    """For each attribute the item asks for: is it right?"""
    seen = look(picture, refs)
    return {k: seen[k] == item[k] for k in ("shape", "colour", "ground", "position", "size")
            if item.get(k) is not None}
