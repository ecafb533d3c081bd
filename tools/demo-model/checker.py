"""Tells what a square picture shows, from pixels alone.

Everything it compares with stands in eval.json (see references.py), the side
of the picture too, so that the same rule can be written again in another
language without drawing code.  The README gives the rule in words.
"""

import numpy as np
from scipy import ndimage


def frame_features(picture, width):
    """Mean and spread of each channel in the outer frame, and its roughness."""
    p = picture.astype(np.float64)
    keep = np.ones(p.shape[:2], bool)
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


def main_region(labels, reach):
    """Of the areas of one colour that hang together (up, down, left, right),
    the one with the most interior: its colour, its pixels as a mask, and how
    many of them find the area also `reach` pixels up, down, left and right, so
    that thin lines count for nothing.  None where there is no such pixel."""
    best, most, first = None, 0, 0
    for colour in np.unique(labels[labels >= 0]):
        areas, count = ndimage.label(labels == colour)
        inside = np.zeros_like(areas)
        near, far, mid = slice(None, -2 * reach), slice(2 * reach, None), slice(reach, -reach)
        same = [areas[mid, mid] == areas[at] for at in ((near, mid), (far, mid), (mid, near), (mid, far))]
        inside[mid, mid] = areas[mid, mid] * np.all(same, 0)
        sizes = np.bincount(inside.ravel(), minlength=count + 1)
        sizes[0] = 0
        number = int(sizes.argmax())     # areas are numbered in reading order
        if sizes[number] == 0:
            continue
        mask = areas == number
        start = int(mask.ravel().argmax())
        if sizes[number] > most or (sizes[number] == most and start < first):
            best, most, first = (int(colour), mask), int(sizes[number]), start
    return None if best is None else (*best, most)


def bounds(mask):
    """First row, first column, last row, last column."""
    ys, xs = np.nonzero(mask)
    return int(ys.min()), int(xs.min()), int(ys.max()), int(xs.max())


def small_mask(mask, box, cells):
    """The area, holes filled, resampled so that its bounding box fills cells x cells."""
    top, left, bottom, right = box
    filled = ndimage.binary_fill_holes(mask[top:bottom + 1, left:right + 1])
    high, wide = filled.shape
    ys = ((np.arange(cells) + 0.5) * high / cells).astype(int)
    xs = ((np.arange(cells) + 0.5) * wide / cells).astype(int)
    return filled[np.ix_(ys, xs)]


def look(picture, refs):
    """What the picture shows: ground, and colour, shape, position and size."""
    rule = refs["rule"]
    seen = {"ground": name_ground(frame_features(picture, rule["frame"]), refs),
            "colour": None, "shape": None, "position": None, "size": None}
    labels = label_pixels(picture, refs, seen["ground"])
    found = main_region(labels, rule["reach"])
    if found is None or found[2] < rule["least_interior"]:
        return seen
    colour, area, _ = found
    seen["colour"] = list(refs["colours"])[colour]
    top, left, bottom, right = box = bounds(area)
    mask = small_mask(area, box, rule["mask_cells"])

    def overlap(rows):
        ref = np.array([[c == "#" for c in row] for row in rows])
        return (mask & ref).sum() / (mask | ref).sum()
    scores = {s: overlap(rows) for s, rows in refs["shapes"].items()}
    shape = max(scores, key=scores.get)
    if scores[shape] >= rule["least_overlap"]:
        seen["shape"] = shape

    def side(low, high):
        off = (low + high + 1) / 2 - rule["side"] / 2
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
