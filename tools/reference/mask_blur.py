"""Masks as diffusers' `mask_processor.blur` softens them, which is PIL's `ImageFilter.GaussianBlur`."""

import shutil
import zlib

import numpy as np
import PIL
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, ImageDraw

from common import made_by, write_json

# 0 to 256 is what a request may ask for.
RADII = [0, 1, 2, 3, 5, 8, 13, 33, 100, 256]

ABOUT = [
    "<name>.png: the mask, and below it what VaeImageProcessor.blur makes of it with each of radii, in this order.",
    "crc32: of the bytes of mask every_radius, blurred with radius 0, 1, ... 256.",
]


def rectangle(width, height, box):
    image = Image.new("L", (width, height), 0)
    ImageDraw.Draw(image).rectangle(box, fill=255)
    return image


def noise(width, height, seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8))


MASKS = {
    "inside": rectangle(64, 48, [20, 12, 43, 30]),
    "corner": rectangle(57, 41, [30, 0, 56, 19]),
    "one_pixel": rectangle(1, 1, [0, 0, 0, 0]),
    "one_wide": rectangle(1, 40, [0, 11, 0, 22]),
    "one_high": rectangle(50, 1, [0, 0, 17, 0]),
    "two_wide": rectangle(2, 9, [1, 3, 1, 5]),
    "noise": noise(37, 23, 3),
    "every_radius": rectangle(640, 5, [200, 0, 420, 2]),
}


def build(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, mask in MASKS.items():
        blurred = [VaeImageProcessor.blur(mask, radius) for radius in RADII]
        pixels = np.concatenate([np.asarray(image) for image in (mask, *blurred)])
        Image.fromarray(pixels).save(folder / f"{name}.png", optimize=True)
    every = MASKS["every_radius"]
    sums = [zlib.crc32(VaeImageProcessor.blur(every, radius).tobytes()) for radius in range(257)]
    assert len(set(sums)) == 257, "every radius must give another mask"
    write_json(folder / "mask_blur.json", {
        "made_by": {**made_by("mask_blur.py"), "pillow": PIL.__version__}, "about": ABOUT,
        "masks": list(MASKS), "radii": RADII, "crc32": sums})
