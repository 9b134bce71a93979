"""Measures one set of pictures: benches/results/quality-SET.json."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL
import simplejpeg
import skimage
from PIL import Image, features
from report import collect, provenance
from skimage.metrics import structural_similarity

import kuat

from . import images
from .images import JPEG, SHARED, WEBP

RESULTS = collect.RESULTS
TARGET = Path("target/quality")
QUALITIES = {
    JPEG: (5, 10, 20, 35, 50, 65, 80, 90, 95, 98, 100),
    SHARED: (5, 20, 35, 50, 65, 80, 90, 95),
    WEBP: (0, 20, 50, 75, 85, 90, 95, 99),
}
OTHERS, BUILTIN = "of other images of the set", "built in"


def measure(name, folder, plan, books, most=None):
    """Measures every codec on the same images and writes the rows. `books` has codebooks by where they come from; those
    that are trained on the rest of the set are added, and returned."""
    began = time.monotonic()
    work = TARGET / name
    work.mkdir(parents=True, exist_ok=True)
    pictures = images.read(folder, plan, most)
    count = min(plan.measured, len(pictures) // 2) if plan.measured else None
    chosen = images.spread(range(len(pictures)), count)
    measured = pictures[chosen]
    others = images.spread(np.delete(pictures, chosen, axis=0), plan.trained)
    note(name, f"{len(measured)} images measured, {len(others)} to train on")
    save(measured, work)
    rows = []
    with multiprocessing.Pool(len(os.sched_getaffinity(0)), start, (measured,)) as pool:
        for codec, qualities in QUALITIES.items():
            if codec != SHARED or plan.tiny:
                rows += [through_files(pool, len(measured), codec, quality) for quality in qualities]
        books = dict(books)
        if plan.measured:
            books[OTHERS] = trained(list(others), plan, work)
        for source, found in books.items():
            for row in archives(found, source, plan, work):
                archive = kuat.KuatArchive(work / row["archive"])
                decoded = archive.decode_batch(range(len(measured)), device="cpu")
                figures = np.array(pool.map(decoded_quality, list(enumerate(decoded)), chunksize=4))
                rows.append({**row, "bytes_per_image": archive.info()["bytes_per_image"], **means(figures)})
                note(name, rows[-1])
        rows += block_compression(work, rows)
    result = {
        "set": name,
        "size": plan.size,
        "measured": len(measured),
        "trained": len(others) if OTHERS in books else 0,
        "versions": {
            "kuat": kuat.__version__,
            "Pillow": PIL.__version__,
            "libjpeg-turbo": features.version("libjpeg_turbo"),
            "simplejpeg": simplejpeg.__version__,
            "libwebp": features.version("webp"),
            "scikit-image": skimage.__version__,
        },
        "cpu": provenance.cpu(),
        **provenance.moment(),
        "seconds": round(time.monotonic() - began),
    }
    images.write(RESULTS / f"quality-{name}.json", result, rows)
    return books.get(OTHERS)


def note(name, what):
    print(f"{name}: {what}", file=sys.stderr, flush=True)


def save(measured, work):
    """The images that are measured, as files and as an array."""
    folder = work / "measured"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for number, image in enumerate(measured):
        Image.fromarray(image).save(folder / f"{number:06}.png", compress_level=1)
    np.save(work / "measured.npy", measured)


def trained(others, plan, work):
    """Codebooks of these images: of layers by the bits per pixel they are for, of plain VQ by patch and codewords."""
    found = {"layers": {}, "vq": {}}
    for patch, codewords in plan.vq:
        path = work / f"vq-{patch}-{codewords}-trained.qvq"
        kuat.encode(others, path, size=plan.size, patch=patch, codebook=codewords, progress=False)
        found["vq"][patch, codewords] = kuat.KuatArchive(path).codebook
    for rate in plan.trained_for:
        path = work / f"layers-{rate}-trained.qvq"
        kuat.encode(others, path, size=plan.size, codec="layers", bytes_per_image=rate, progress=False)
        found["layers"][plan.bits_per_pixel(rate)] = kuat.KuatArchive(path)
    return found


def archives(books, source, plan, work):
    """Archives of the measured images with these codebooks: rows that name them."""
    short = "-".join(source.replace(",", "").split())
    for (patch, codewords), codebook in books.get("vq", {}).items():
        name = f"vq-{patch}-{codewords}-{short}.qvq"
        kuat.encode(work / "measured", work / name, size=plan.size, patch=patch, codebook=codebook, progress=False)
        vq = {"codec": "plain VQ", "patch": patch, "codewords": codewords}
        yield {**vq, "books": source, "codebook_bytes": codebook.nbytes, "archive": name}
    for rate in plan.rates:
        nearest = min(books["layers"], key=lambda bits: abs(bits - plan.bits_per_pixel(rate)))
        name = f"layers-{rate}-{short}.qvq"
        summary = kuat.encode(
            work / "measured", work / name, size=plan.size, codec="layers", codebook=books["layers"][nearest],
            bytes_per_image=rate, progress=False,
        )  # fmt: skip
        about = {"codec": "layers", "asked": rate, "books": source}
        yield {**about, "codebook_bytes": summary["codebook_bytes"], "archive": name}


def start(images):
    """What a process of the pool measures with."""
    global originals
    originals = images


def quality(original, decoded):
    """Mean squared error, PSNR in dB, an exact image counted as 100, and SSIM (Wang et al. 2004), the mean of the
    channels'."""
    error = np.square(original.astype(np.float64) - decoded).mean()
    # Single precision is twice as fast and good to five digits.
    ssim = structural_similarity(
        original.astype(np.float32), decoded.astype(np.float32), data_range=255, channel_axis=2,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    return error, psnr(error), float(ssim)


def psnr(error):
    return 100.0 if error == 0 else min(100.0, 10 * np.log10(255**2 / error))


def means(figures):
    """Over images: the mean PSNR, and that of the mean error, which weighs bad images more."""
    error, mean_psnr, ssim = (float(mean) for mean in figures.mean(axis=0))
    return {"psnr_db": mean_psnr, "pooled_psnr_db": float(psnr(error)), "ssim": ssim}


def through_file(task):
    """An image through a file of another codec: bytes, then its quality."""
    i, codec, setting = task
    file = images.encoded(originals[i], codec, setting)
    return images.counted(file, codec), *quality(originals[i], images.decoded(file))


def decoded_quality(task):
    i, decoded = task
    return quality(originals[i], decoded)


def through_files(pool, count, codec, setting):
    """A row of another codec."""
    figures = np.array(pool.map(through_file, [(i, codec, setting) for i in range(count)], chunksize=4))
    mean_bytes = float(figures[:, 0].mean())
    return {"codec": codec, "setting": setting, "bytes_per_image": mean_bytes, **means(figures[:, 1:])}


def block_compression(work, rows):
    """The row of BC1, as `kuat compare` has it beside an archive whose index rows take no fewer bytes: that of 2x2
    patches and 16 bits."""
    large = [row for row in rows if row.get("patch") == 2 and row["codewords"] > 32_768]
    if not large:
        return []
    archive = work / large[0]["archive"]
    command = [sys.executable, "-m", "kuat", "compare", archive, work / "measured", "--samples", "all", "--json"]
    compared = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    full = [rival for rival in compared["rivals"] if (rival["budget"], rival["setting"]) == ("row", "full size")]
    return [{"codec": "BC1", **{key: rival[key] for key in ("bytes_per_image", "psnr_db", "ssim")}} for rival in full]
