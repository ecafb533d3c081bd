"""The program that draws the training pictures.

A scene is one coloured shape on one ground, or a ground alone.  Every picture follows from its
attributes and one integer seed.  Pictures are drawn at twice the final size
and averaged down 2x2, so edges are smooth without any drawing library.

All lengths are in units of 1/64 of the picture's side, whatever its number of
pixels: the same seed gives the same scene at every SIZE, only finer.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

UNITS = 64           # side of a picture, in units of length
SIZE = 128           # side of a finished picture, in pixels
FINE = 2 * SIZE      # side while drawing
AXIS = (np.arange(FINE) + 0.5) * UNITS / FINE

PALETTE = {
    "red": (222, 38, 42), "orange": (246, 136, 24), "yellow": (250, 220, 44),
    "green": (38, 196, 84), "blue": (40, 84, 228), "purple": (142, 56, 196),
    "pink": (252, 130, 186), "brown": (116, 66, 32), "black": (28, 28, 32),
    "white": (250, 250, 250),
}
COLOURS = list(PALETTE)
SHAPES = ["circle", "square", "triangle", "star", "heart", "diamond"]
TEXTURES = ["grass", "water", "sand", "stone", "brick", "wood", "lava", "snow",
            "sky", "night"]
GROUNDS = TEXTURES + ["plain " + c for c in COLOURS]

# Half the side of the shape's bounding box.
SIZES = {"small": 9.5, "medium": 14.0, "large": 20.0}
# How far off the middle a shape sits; large ones have less room to move.
OFFSETS = {"small": 15.0, "medium": 12.0, "large": 8.0}
POSITIONS = {
    "top left": (-1, -1), "top": (0, -1), "top right": (1, -1),
    "left": (-1, 0), "center": (0, 0), "right": (1, 0),
    "bottom left": (-1, 1), "bottom": (0, 1), "bottom right": (1, 1),
}


def drawable(colour, ground):
    """Whether the colour can be told from the ground at all."""
    return ground != "plain " + colour and (colour, ground) not in {
        ("white", "snow"), ("black", "night")}


@dataclass(frozen=True)
class Scene:
    shape: str | None    # None, as the colour then is: the ground alone
    colour: str | None
    ground: str
    position: str
    size: str
    seed: int


# --- shapes ---------------------------------------------------------------

def outline_points(shape):
    """Corner points of a shape whose bounding box is [-1, 1] both ways."""
    if shape == "circle":
        t = np.linspace(0, 2 * np.pi, 72, endpoint=False)
        p = np.stack([np.cos(t), np.sin(t)], 1)
    elif shape == "square":
        p = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float)
    elif shape == "triangle":
        p = np.array([(0, -1), (1, 1), (-1, 1)], float)
    elif shape == "diamond":
        p = np.array([(0, -1), (1, 0), (0, 1), (-1, 0)], float)
    elif shape == "star":
        t = -np.pi / 2 + np.arange(10) * np.pi / 5
        r = np.where(np.arange(10) % 2 == 0, 1.0, 0.46)
        p = np.stack([r * np.cos(t), r * np.sin(t)], 1)
    elif shape == "heart":
        t = np.linspace(0, 2 * np.pi, 80, endpoint=False)
        x = np.sin(t) ** 3
        y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
        p = np.stack([x, y / 16], 1)
    else:
        raise ValueError(shape)
    low, high = p.min(0), p.max(0)
    return (p - (low + high) / 2) / ((high - low) / 2)


TABLE_SIDE, TABLE_REACH = 257, 3.0


@lru_cache(maxsize=None)
def distance_table(shape):
    """Signed distance to the outline (negative inside) on a grid, unit size."""
    points = outline_points(shape)
    axis = np.linspace(-TABLE_REACH, TABLE_REACH, TABLE_SIDE)
    x, y = np.meshgrid(axis, axis)
    nearest = np.full(x.shape, np.inf)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(points, np.roll(points, -1, 0)):
        ex, ey = bx - ax, by - ay
        t = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, (x - ax - t * ex) ** 2 + (y - ay - t * ey) ** 2)
        if ay != by:  # count crossings of a ray to the right
            crosses = (ay <= y) != (by <= y)
            inside ^= crosses & (x < ax + (y - ay) / (by - ay) * ex)
    return np.where(inside, -1, 1) * np.sqrt(nearest)


def distance_map(shape, cx, cy, half):
    """Signed distance, in units, at every fine pixel."""
    table = distance_table(shape)
    def place(centre):
        u = ((AXIS - centre) / half / TABLE_REACH + 1) / 2 * (TABLE_SIDE - 1)
        u = np.clip(u, 0, TABLE_SIDE - 1.001)
        i = u.astype(int)
        return i, u - i

    (ix, fx), (iy, fy) = place(cx), place(cy)
    rows = table[iy] * (1 - fy[:, None]) + table[iy + 1] * fy[:, None]
    return (rows[:, ix] * (1 - fx) + rows[:, ix + 1] * fx) * half


# --- grounds --------------------------------------------------------------

@lru_cache(maxsize=None)
def spread(n):
    """Matrix that interpolates n random values smoothly over FINE pixels."""
    u = (np.arange(FINE) + 0.5) / FINE * (n - 1)
    i = np.minimum(u.astype(int), n - 2)
    f = u - i
    f = f * f * (3 - 2 * f)
    m = np.zeros((FINE, n))
    m[np.arange(FINE), i] = 1 - f
    m[np.arange(FINE), i + 1] = f
    return m


def noise(rng, ny, nx):
    """Smooth noise in [-1, 1] with about ny by nx bumps."""
    return spread(ny + 1) @ rng.uniform(-1, 1, (ny + 1, nx + 1)) @ spread(nx + 1).T


def ramp(value, *stops):
    """Colours along equally spaced stops, value running from 0 to 1."""
    stops = np.array(stops, float)
    u = np.clip(value, 0, 1) * (len(stops) - 1)
    i = np.minimum(u.astype(int), len(stops) - 2)
    f = (u - i)[..., None]
    return stops[i] * (1 - f) + stops[i + 1] * f


Y, X = np.meshgrid(AXIS, AXIS, indexing="ij")


def cells(rng, n, squeeze=1.0):
    """Cobbles: owner of each pixel, and how far the next cobble's middle is."""
    step = UNITS / n
    grid = np.stack(np.meshgrid(np.arange(-1, n + 1), np.arange(-1, n + 1)), -1).reshape(-1, 2)
    p = (grid + 0.5 + rng.uniform(-0.32, 0.32, grid.shape)) * step
    p[:, 0] += (grid[:, 1] % 2) * step / 2
    d = np.sqrt((X[..., None] - p[:, 0]) ** 2 + ((Y[..., None] - p[:, 1]) * squeeze) ** 2)
    two = np.partition(d, 1, axis=-1)[..., :2]
    return d.argmin(-1), two[..., 1] - two[..., 0], len(p)


def draw_ground(name, rng):
    if name.startswith("plain "):
        base = np.array(PALETTE[name[6:]], float) * 0.94 + 4
        light = 1 + 0.07 * noise(rng, 1, 1) + 0.05 * (0.5 - Y / UNITS)
        return base * light[..., None]
    if name == "grass":
        blades = 0.6 * noise(rng, 10, 26) + 0.45 * noise(rng, 5, 18) + 0.35 * noise(rng, 3, 3)
        return ramp(0.5 + 0.5 * blades, (34, 84, 24), (66, 126, 40), (118, 168, 62))
    if name == "water":
        bend = 5 * noise(rng, 4, 4) + 1.5 * noise(rng, 8, 8)
        wave = np.sin((Y + bend) * 2 * np.pi / rng.uniform(9, 12) + rng.uniform(0, 6))
        value = 0.42 + 0.28 * wave + 0.18 * noise(rng, 3, 3)
        return ramp(value, (14, 70, 120), (28, 122, 168), (96, 190, 214), (190, 232, 238))
    if name == "sand":
        bend = 4 * noise(rng, 3, 3)
        ripple = np.sin((Y + 0.35 * X + bend) * 2 * np.pi / rng.uniform(10, 13) + rng.uniform(0, 6))
        value = 0.5 + 0.26 * ripple + 0.12 * noise(rng, 24, 24) + 0.15 * noise(rng, 2, 2)
        return ramp(value, (196, 162, 108), (222, 192, 138), (238, 216, 170))
    if name == "stone":
        owner, gap, n = cells(rng, 5)
        value = rng.uniform(0.35, 0.85, n)[owner] + 0.12 * noise(rng, 12, 12)
        stone = ramp(value, (92, 94, 98), (138, 140, 144), (178, 178, 180))
        return stone * (0.42 + 0.58 * np.clip(gap / 3.2, 0, 1))[..., None]
    if name == "brick":
        high, wide = 8.0, 16.0
        y = Y + rng.uniform(0, high)
        row = np.floor(y / high).astype(int)
        x = X + (row % 2) * wide / 2 + rng.uniform(0, wide)
        column = np.floor(x / wide).astype(int)
        tone = rng.uniform(0.1, 0.9, (12, 8))[row % 12, column % 8] + 0.12 * noise(rng, 14, 14)
        edge = np.minimum(np.minimum(y % high, high - y % high), np.minimum(x % wide, wide - x % wide))
        mortar = np.clip((1.2 - edge) / 0.7, 0, 1)[..., None]
        face = ramp(tone, (128, 52, 40), (160, 74, 54), (184, 98, 72))
        return face * (1 - mortar) + np.array((202, 192, 178)) * mortar
    if name == "wood":
        high = 12.8
        y = Y + rng.uniform(0, high)
        row = np.floor(y / high).astype(int)
        shade = rng.uniform(-0.18, 0.18, 8)[row % 8]
        grain = np.sin(y * 1.5 + 2.2 * noise(rng, 10, 3) + 9 * shade)
        value = 0.5 + shade + 0.17 * grain + 0.12 * noise(rng, 16, 4)
        gap = np.clip(np.minimum(y % high, high - y % high) / 0.9, 0, 1)
        return ramp(value, (140, 94, 54), (178, 126, 76), (208, 160, 106)) * (0.45 + 0.55 * gap)[..., None]
    if name == "lava":
        crack = np.abs(0.8 * noise(rng, 5, 5) + 0.3 * noise(rng, 10, 10))
        heat = np.exp(-crack / 0.17) * (0.85 + 0.3 * noise(rng, 3, 3))
        return ramp(heat, (44, 18, 18), (96, 24, 14), (214, 62, 10), (255, 150, 20), (255, 226, 96))
    if name == "snow":
        drift = 0.7 + 0.3 * noise(rng, 4, 3) + 0.16 * noise(rng, 10, 8)
        return ramp(drift, (176, 198, 226), (214, 226, 242), (240, 246, 252))
    if name == "sky":
        cloud = 0.65 * noise(rng, 4, 3) + 0.35 * noise(rng, 8, 6) - 0.05
        alpha = np.clip(cloud * 2.4, 0, 1)[..., None]
        blue = ramp(Y / UNITS, (84, 158, 232), (160, 208, 246))
        return blue * (1 - alpha) + np.array((246, 250, 254)) * alpha
    if name == "night":
        value = 0.35 + 0.35 * Y / UNITS + 0.3 * noise(rng, 3, 3)
        sky = ramp(value, (8, 10, 34), (24, 26, 70), (50, 44, 108))
        for x, y in rng.uniform(1, UNITS - 1, (22, 2)):
            glow = np.exp(-((X - x) ** 2 + (Y - y) ** 2) / rng.uniform(0.5, 1.3))
            sky = sky + glow[..., None] * (np.array((255, 250, 214)) - sky)
        return sky
    raise ValueError(name)


# --- the whole picture ----------------------------------------------------

def geometry(scene):
    """Centre and half side of the shape; slightly different for each seed."""
    rng = np.random.default_rng((scene.seed, 1))
    half = SIZES[scene.size] + rng.uniform(-1, 1)
    dx, dy = POSITIONS[scene.position]
    off = OFFSETS[scene.size]
    cx = UNITS / 2 + dx * off + rng.uniform(-1.2, 1.2)
    cy = UNITS / 2 + dy * off + rng.uniform(-1.2, 1.2)
    return cx, cy, half


def draw_shape(picture, scene):
    """The picture with the scene's shape and its shadow on it."""
    cx, cy, half = geometry(scene)
    shadow = distance_map(scene.shape, cx + 1.2, cy + 2.0, half)
    dark = 0.42 * np.clip(0.5 - shadow / 3.5, 0, 1)
    picture = picture * (1 - dark)[..., None]

    d = distance_map(scene.shape, cx, cy, half)
    colour = np.array(PALETTE[scene.colour], float)
    # Lit from the upper left, so that a flat shape looks slightly raised.
    slope = ((cx - X) + (cy - Y)) / (2 * half)
    body = colour * (1 + 0.13 * np.clip(slope, -1, 1))[..., None]
    gloss = 0.34 * np.exp(-(((X - cx) / half + 0.3) ** 2 + ((Y - cy) / half + 0.32) ** 2) / 0.1)
    body = body + (255 - body) * gloss[..., None]
    # A dark rim keeps a shape visible on a ground of nearly its own colour.
    rim = np.array((118, 118, 128), float) if scene.colour == "black" else colour * 0.3
    rim_part = np.clip((d + 1.5) / 0.6 + 0.5, 0, 1)[..., None]
    body = body * (1 - rim_part) + rim * rim_part
    cover = np.clip(0.5 - d * 2, 0, 1)[..., None]
    return picture * (1 - cover) + body * cover


def draw(scene):
    """The finished picture, SIZE x SIZE x 3 bytes."""
    rng = np.random.default_rng((scene.seed, 2))
    picture = draw_ground(scene.ground, rng)
    if scene.shape:
        picture = draw_shape(picture, scene)
    picture = picture.reshape(SIZE, FINE // SIZE, SIZE, FINE // SIZE, 3).mean((1, 3))
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)
