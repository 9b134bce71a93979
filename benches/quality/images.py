"""Sets of pictures at one size, and the codecs that they go through one by one."""

import dataclasses
import io
import json

import numpy as np
from PIL import Image, ImageOps

JPEG, WEBP, SHARED = "JPEG 4:2:0", "WebP", "JPEG 4:2:0, tables shared"
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a set is measured."""

    size: tuple
    # Bytes of an image: those that layers are asked for, and those that their codebooks are trained for.
    rates: tuple
    trained_for: tuple = ()
    # Sides of a patch and codewords of plain VQ.
    vq: tuple = ((4, 4096), (4, 65_536), (2, 65_536))
    # Pictures that are measured, half of them at most, and that train codebooks; all are measured if there is none.
    measured: int = None
    trained: int = None
    # What the shorter side is brought to before the centre is cut out.
    short: int = None
    # Whether files are so small that the tables in them outweigh the picture.
    tiny: bool = False

    def bits_per_pixel(self, rate):
        return 8 * rate / (self.size[0] * self.size[1])


PHOTOGRAPHS = Plan(
    (224, 224),
    (6_000, 8_000, 11_000, 13_500, 16_000, 20_000),
    (8_000, 13_500, 20_000),
    measured=80,
    trained=600,
    short=256,
)
# 0.5 to 1.5 bits per pixel.
KODAK = Plan((768, 512), (24_576, 36_864, 49_152, 61_440, 73_728))
CIFAR = Plan((32, 32), (200, 300, 400, 550, 700), (400,), ((4, 256), (4, 4096), (2, 4096)), measured=200, tiny=True)


def read(folder, plan, most=None):
    """The pictures of a folder as one array, at most so many from all over it. Portraits are laid on their side if the
    size is a landscape's."""
    return np.stack([prepared(path, plan.size, plan.short) for path in spread(files(folder), most)])


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def prepared(path, size, short=None):
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file).convert("RGB")
    if size[0] > size[1] and image.height > image.width:
        image = image.transpose(Image.Transpose.ROTATE_90)
    if image.size != tuple(size):
        scale = (short or min(size)) / min(image.size)
        image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
        left, top = ((have - want) // 2 for have, want in zip(image.size, size))
        image = image.crop((left, top, left + size[0], top + size[1]))
    return np.asarray(image)


def spread(items, most):
    """At most so many of them, from all over."""
    count = min(len(items), most or len(items))
    return [items[i * len(items) // count] for i in range(count)]


def encoded(image, codec, setting):
    """The file of an image."""
    file = io.BytesIO()
    if codec == WEBP:
        Image.fromarray(image).save(file, "WEBP", quality=setting, method=6)
    else:
        # Tables that all files share are those of the standard.
        optimize = codec == JPEG
        Image.fromarray(image).save(file, "JPEG", quality=setting, optimize=optimize, subsampling="4:2:0")
    return file.getvalue()


def decoded(file):
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def counted(file, codec):
    """Bytes of a file, less those of what all files have in common if they share it."""
    return len(file) - (common(file) if codec == SHARED else 0)


def common(file):
    """Bytes of a JPEG file's quantisation tables, Huffman tables and application segments."""
    size, at = 0, 2
    # Segments up to the start of the scan: a marker of two bytes, a length that counts itself.
    while (marker := file[at + 1]) != 0xDA:
        length = 2 + int.from_bytes(file[at + 2 : at + 4], "big")
        if marker in (0xDB, 0xC4) or 0xE0 <= marker <= 0xEF:
            size += length
        at += length
    return size


def at_least(size, codec, pictures):
    """Files of the lowest quality that take at least so many bytes in the mean, or of the highest."""

    def files(quality):
        return [encoded(picture, codec, quality) for picture in pictures]

    low, high = 1, 100
    while low < high:
        middle = (low + high) // 2
        if np.mean([counted(file, codec) for file in files(middle)]) >= size:
            high = middle
        else:
            low = middle + 1
    return files(low)


def write(path, result, rows):
    """JSON with a line for each row, so that differences between two can be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join("    " + json.dumps(row) for row in rows)
    path.write_text(f'{json.dumps(result, indent=2)[:-2]},\n  "rows": [\n{lines}\n  ]\n}}\n')
