"""Control pictures made from others: edges, lines and depths, as OpenCV and numpy make them."""

import shutil

import cv2
import numpy as np
from PIL import Image, ImageDraw

from common import made_by, write_json

CANNY = [(100, 200), (40, 90), (250, 120)]

ABOUT = [
    "canny_<low>_<high>.png: cv2.Canny of picture.png in RGB (not smoothed, 3x3, L1). lineart.png: cv2.GaussianBlur 5x5 of "
    "the lightness 0.299 R + 0.587 G + 0.114 B in f32, cv2.Sobel 3x3 in both directions, the length divided by the "
    "largest times 255; borders replicated.",
    "depth_<bits>.png of depth_map_<bits>.png: round((v - min) / (max - min) * 255) in f64; depth_inverted_<bits>.png: 255 "
    "where v is smallest.",
]


def picture(width=97, height=73):
    """Gradients, shapes in colours of the same lightness, text-like strokes and noise."""
    rows, columns = np.mgrid[0:height, 0:width]
    base = np.stack([columns * 200 // width, rows * 180 // height, 128 + 0 * rows], axis=-1).astype(np.uint8)
    image = Image.fromarray(base, "RGB")
    draw = ImageDraw.Draw(image)
    draw.ellipse([10, 8, 50, 60], fill=(220, 40, 30))
    draw.rectangle([55, 20, 90, 45], fill=(30, 60, 200))
    draw.polygon([(60, 70), (75, 48), (92, 66)], fill=(40, 200, 80))
    for x in range(14, 46, 6):
        draw.line([x, 20, x + 9, 44], fill=(250, 250, 240))
    noise = np.random.default_rng(7).normal(0, 9, base.shape)
    return np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)


def lineart(pixels):
    grey = (pixels.astype(np.float32) * np.float32([0.299, 0.587, 0.114])).sum(axis=-1)
    smooth = cv2.GaussianBlur(grey, (5, 5), 0, borderType=cv2.BORDER_REPLICATE)
    dx, dy = (cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=3, borderType=cv2.BORDER_REPLICATE) for order in ((1, 0), (0, 1)))
    length = np.hypot(dx, dy)
    return np.round(length / length.max() * 255).astype(np.uint8)


def depth(values, inverted):
    shares = (values.astype(np.float64) - values.min()) / (int(values.max()) - int(values.min()))
    # Halves are rounded up, as in the engine.
    return np.floor((1 - shares if inverted else shares) * 255 + 0.5).astype(np.uint8)


def build(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save = lambda name, pixels: Image.fromarray(pixels).save(folder / name, optimize=True)
    pixels = picture()
    save("picture.png", pixels)
    for low, high in CANNY:
        edges = cv2.Canny(pixels, low, high)
        assert 0.02 < (edges > 0).mean() < 0.4, "too few or too many edges to mean anything"
        save(f"canny_{low}_{high}.png", edges)
    save("lineart.png", lineart(pixels))
    rows, columns = np.mgrid[0:40, 0:52]
    relief = 0.5 + 0.3 * np.sin(columns / 9) + 0.2 * np.cos(rows / 5)
    for bits, values in ((16, (9000 + 31000 * relief).astype(np.uint16)), (8, (20 + 180 * relief).astype(np.uint8))):
        save(f"depth_map_{bits}.png", values)
        save(f"depth_{bits}.png", depth(values, False))
        save(f"depth_inverted_{bits}.png", depth(values, True))
    write_json(folder / "preprocess.json", {
        "made_by": {**made_by("preprocess.py"), "opencv": cv2.__version__}, "about": ABOUT,
        "canny": [{"low": low, "high": high, "file": f"canny_{low}_{high}.png"} for low, high in CANNY]})
