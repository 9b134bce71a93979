"""Crops of scikit-image's photographs side by side, all codecs in as many bytes: benches/results/quality/CROP.png."""

import numpy as np
import skimage
from PIL import Image, ImageDraw, ImageFont

import kuat

from . import images, measure
from .images import JPEG, WEBP

# Left and top of what is shown of each photograph.
CROPS = {"astronaut": (150, 40), "coffee": (190, 120), "chelsea": (120, 60)}
SIDE, LABEL = 128, 22


# Codebooks made when rates were measured: plain VQ's of one bit per pixel, and layers' of about as much.
SET, VQ, LAYERS = "imagewoof", "vq-4-65536-trained.qvq", "layers-8000-trained.qvq"


def make(results, books=None):
    """Codes the photographs, layers with codebooks of an archive like the built-in ones, or else those of the set."""
    work = measure.TARGET / SET
    vq, layers = kuat.KuatArchive(work / VQ), kuat.KuatArchive(books or work / LAYERS)
    rows = []
    for name, (left, top) in CROPS.items():
        original = getattr(skimage.data, name)()
        panels = [("original", original.size, original), *coded(original, vq.codebook, layers)]
        whole = Image.new("RGB", (len(panels) * (2 * SIDE + 4) - 4, 2 * SIDE + LABEL), "white")
        draw, font = ImageDraw.Draw(whole), ImageFont.load_default(14)
        for place, (codec, size, image) in enumerate(panels):
            error = np.square(original.astype(np.float64) - image).mean()
            row = {"picture": name, "codec": codec, "bytes": size, "psnr_db": float(measure.psnr(error))}
            said = codec if codec == "original" else f"{codec}, {size:,} bytes, {row['psnr_db']:.1f} dB"
            crop = Image.fromarray(image[top : top + SIDE, left : left + SIDE])
            at = place * (2 * SIDE + 4)
            whole.paste(crop.resize((2 * SIDE, 2 * SIDE), Image.Resampling.NEAREST), (at, LABEL))
            draw.text((at + 2, 2), said, "black", font)
            rows.append(row)
        path = results / "quality" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.save(path, optimize=True)
    images.write(
        results / "quality-crops.json",
        {"vq_books": f"of {SET}", "books": "made as the built-in ones" if books else f"of {SET}"},
        rows,
    )


def coded(original, vq, layers):
    """The whole photograph through each codec: name, bytes, pixels."""
    height, width, _ = original.shape
    rate = 2 * -(-height // 4) * -(-width // 4)
    for name, options in (
        ("plain VQ", {"patch": 4, "codebook": vq}),
        ("layers", {"codec": "layers", "codebook": layers, "bytes_per_image": rate}),
    ):
        path = measure.TARGET / "crop.qvq"
        kuat.encode([original], path, size=(width, height), progress=False, **options)
        archive = kuat.KuatArchive(path)
        yield name, round(archive.info()["bytes_per_image"]), archive.decode_batch([0], device="cpu")[0]
    for codec in JPEG, WEBP:
        (file,) = images.at_least(rate, codec, [original])
        yield codec, len(file), images.decoded(file)
