"""pictures.json and pictures/*: small files of every kind that users send, and the pixels that PIL reads from them."""

import shutil
import struct
import zlib

import numpy as np
import PIL
from PIL import Image, ImageOps, PngImagePlugin

from common import write_json

WIDTH, HEIGHT = 6, 4

ABOUT = [
    "Per file: width and height as shown (EXIF orientation applied), rgb: 8-bit pixels over white where the file is "
    "transparent, luma (not of JPEG): those over black as PIL's `L`, alpha (where the file has it). Row by row.",
    "Files of 16 bits were written by hand; their expected pixels are value / 257, rounded, as PIL keeps only the upper byte.",
    "JPEG: two decoders may differ by a few of 255.",
]


def shades(channels, maximum):
    """Values that differ in every pixel and channel and reach both ends."""
    count = WIDTH * HEIGHT * channels
    values = (np.arange(count) * 7919 % count) / (count - 1)
    return (values * maximum).round().reshape(HEIGHT, WIDTH, channels)


def write_png16(path, values):
    """PIL writes no colours of 16 bits."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, kind, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, data in chunks:
            file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))


def expected(image):
    jpeg = image.format == "JPEG"
    image = ImageOps.exif_transpose(image)
    alpha = image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info
    rgba = image.convert("RGBA")
    over = {behind: Image.alpha_composite(Image.new("RGBA", rgba.size, (behind,) * 3 + (255,)), rgba).convert("RGB")
            for behind in (0, 255)}
    row = {"width": rgba.width, "height": rgba.height, "rgb": np.asarray(over[255]).flatten().tolist()}
    if not jpeg:
        row["luma"] = np.asarray(over[0].convert("L")).flatten().tolist()
    if alpha:
        row["alpha"] = np.asarray(rgba.getchannel("A")).flatten().tolist()
    return row


def of_8_bits(values):
    values = (values / 257).round().astype(np.uint8)
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[values.shape[2]]
    return Image.fromarray(values[:, :, 0] if mode == "L" else values, mode)


def blocks():
    """Flat blocks of colour, large enough that JPEG keeps them."""
    picture = np.zeros((16, 24, 3), np.uint8)
    for index, colour in enumerate([(200, 40, 40), (40, 200, 40), (40, 40, 200)]):
        picture[:, index * 8 : index * 8 + 8] = colour
    picture[8:] = 255 - picture[8:]
    return Image.fromarray(picture, "RGB")


def oriented(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def files(folder):
    """Writes the files and yields name and what it shows."""
    def opened(name):
        return name, Image.open(folder / name)

    def saved(name, image, **options):
        image.save(folder / name, **options)
        return opened(name)

    rgb = Image.fromarray(shades(3, 255).astype(np.uint8), "RGB")
    rgba = Image.fromarray(shades(4, 255).astype(np.uint8), "RGBA")
    gray = Image.fromarray(shades(1, 255).astype(np.uint8)[:, :, 0], "L")
    for name, image in [("rgb", rgb), ("rgba", rgba), ("gray", gray), ("gray_alpha", rgba.convert("LA")),
                        ("black_white", gray.convert("1")), ("palette", rgb.quantize(16))]:
        yield saved(f"{name}.png", image)
    yield saved("palette_transparent.png", rgb.quantize(4), transparency=bytes([0, 100, 255, 200]))
    yield saved("palette_one_transparent.png", rgb.quantize(4), transparency=2)
    yield saved("gray_transparent.png", gray, transparency=int(np.asarray(gray)[1, 1]))
    for channels in (1, 2, 3, 4):
        values = shades(channels, 65535)
        write_png16(folder / f"bits16_{channels}.png", values)
        yield f"bits16_{channels}.png", of_8_bits(values)
    for name, image in [("rgb", rgb), ("rgba", rgba)]:
        yield saved(f"{name}.webp", image, lossless=True, exact=True)
    yield saved("rotated.webp", rgb, lossless=True, exact=True, exif=oriented(6))
    yield saved("rotated.png", rgb, exif=oriented(8))
    for number in range(1, 9):
        yield saved(f"orientation_{number}.jpg", blocks(), quality=95, subsampling=0, exif=oriented(number))
    yield saved("gray.jpg", blocks().convert("L"), quality=95)
    yield saved("progressive.jpg", blocks(), quality=95, subsampling=0, progressive=True)
    second = ImageOps.invert(rgb)
    yield saved("animated.png", rgb, save_all=True, append_images=[second])
    yield saved("animated.webp", rgb, save_all=True, append_images=[second], lossless=True, exact=True)


def a1111(folder):
    """A file with the text as A1111 writes it: tEXt, or iTXt beyond Latin-1."""
    for name, prompt in [("a1111.png", "a lighthouse"), ("a1111_unicode.png", "灯台")]:
        text = PngImagePlugin.PngInfo()
        text.add_text("parameters", f"{prompt}\nNegative prompt: fog\nSteps: 20, Sampler: DPM++ 2M SDE Karras, CFG scale: 7, "
                      "Seed: 1234567890, Size: 512x640, Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, Version: v1.6.0")
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / name, pnginfo=text)


def build(output):
    folder = output / "pictures"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = {name: expected(image) for name, image in files(folder)}
    a1111(folder)
    write_json(output / "pictures.json", {
        "made_by": {"tool": "tools/reference/pictures.py", "pillow": PIL.__version__, "numpy": np.__version__},
        "about": ABOUT, "files": rows})
