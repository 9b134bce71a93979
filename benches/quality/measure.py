"""Measures one set of pictures: benches/results/quality-SET.json."""

import io
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL
import skimage
from PIL import Image, ImageOps, features
from report import collect, provenance
from skimage.metrics import structural_similarity

import kuat

RESULTS = collect.RESULTS
TARGET = Path("target/quality")
# Codewords for each side of a patch.
CODEBOOKS = {2: (256, 4096, 65_536), 4: (256, 4096, 65_536), 8: (256, 4096)}
# Of the images that no codebook was trained on, at most so many are measured.
MEASURED = 100
JPEG = 5, 10, 20, 35, 50, 65, 80, 90, 95, 98, 100
WEBP = 0, 20, 50, 75, 90
MEANS = "bytes_per_image", "psnr_db", "ssim"


def measure(name, folder, size, most=None):
    """Measures every codec on the same images, at most so many from all over the folder, and writes the rows."""
    began = time.monotonic()
    work = TARGET / name
    images = prepare(folder, work / "pixels", size, most)
    print(f"{name}: {len(images)} images", file=sys.stderr)
    # Every other image trains codebooks for the rest.
    trained, others = images[::2], images[1::2]
    chosen = [i * len(others) // min(MEASURED, len(others)) for i in range(min(MEASURED, len(others)))]
    rows = []
    with multiprocessing.Pool(len(os.sched_getaffinity(0)), start, (others[chosen],)) as pool:
        rows += [coded(pool, len(chosen), "JPEG 4:2:0", quality) for quality in JPEG]
        rows += [coded(pool, len(chosen), "WebP", quality) for quality in WEBP]
        for patch, codebooks in CODEBOOKS.items():
            for codewords in codebooks:
                options = {"size": size, "patch": patch, "progress": False}
                path = work / f"{patch}-{codewords}.qvq"
                # On the images it encodes, as one does; and on the others, as further images would fare.
                kuat.encode(work / "pixels", path, codebook=codewords, **options)
                same = kuat.KuatArchive(path)
                half = work / f"{patch}-{codewords}-half.qvq"
                kuat.encode(list(trained), half, codebook=codewords, **options)
                rest = work / f"{patch}-{codewords}-rest.qvq"
                kuat.encode(list(others), rest, codebook=kuat.KuatArchive(half), **options)
                for archive, on, ids in (
                    (same, "the same images", [2 * i + 1 for i in chosen]),
                    (kuat.KuatArchive(rest), "other images", chosen),
                ):
                    rows.append(archived(pool, archive, patch, on, archive.decode_batch(ids, device="cpu")))
                    print(f"{name}: {rows[-1]}", file=sys.stderr)
        # An archive of 2x2 patches and 16 bits takes as many bytes as BC1.
        rows += full_size(work / f"2-{max(CODEBOOKS[2])}.qvq", work / "pixels", [2 * i + 1 for i in chosen])
    facts = {
        "kuat": kuat.__version__,
        "Pillow": PIL.__version__,
        "libjpeg-turbo": features.version("libjpeg_turbo"),
        "libwebp": features.version("webp"),
        "scikit-image": skimage.__version__,
    }
    moment = provenance.moment()
    result = {"set": name, "size": size, "images": len(images), "measured": len(chosen), "versions": facts, **moment}
    result["seconds"] = round(time.monotonic() - began)
    path = RESULTS / f"quality-{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join("    " + json.dumps(row) for row in rows)
    head = json.dumps(result, indent=2)[:-2]
    path.write_text(f'{head},\n  "rows": [\n{lines}\n  ]\n}}\n')


def prepare(folder, target, size, most):
    """The images at one size, as an array and as PNG files: portraits are laid on their side, then the shorter side is
    brought to the size and the centre cut out, unless the image has the size."""
    target.mkdir(parents=True, exist_ok=True)
    for old in target.iterdir():
        old.unlink()
    suffixes = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in suffixes)
    count = min(len(paths), most or len(paths))
    images = []
    for path in (paths[i * len(paths) // count] for i in range(count)):
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
        if size[0] > size[1] and image.height > image.width:
            image = image.transpose(Image.Transpose.ROTATE_90)
        if image.size != tuple(size):
            image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
        image.save(target / f"{len(images):06}.png", compress_level=1)
        images.append(np.asarray(image))
    return np.stack(images)


def start(images):
    """What a process of the pool measures with."""
    global originals
    originals = images


def quality(original, decoded):
    """PSNR in dB, an exact image counted as 100, and SSIM (Wang et al. 2004), the mean of the channels'."""
    error = np.square(original.astype(np.float64) - decoded).mean()
    psnr = 100.0 if error == 0 else min(100.0, 10 * np.log10(255**2 / error))
    # Single precision is twice as fast and good to five digits.
    ssim = structural_similarity(
        original.astype(np.float32), decoded.astype(np.float32), data_range=255, channel_axis=2,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    return psnr, float(ssim)


def through_file(task):
    """An image through a file of another codec: bytes, PSNR, SSIM."""
    i, codec, setting = task
    file = io.BytesIO()
    image = Image.fromarray(originals[i])
    if codec == "WebP":
        image.save(file, "WEBP", quality=setting, method=6)
    else:
        image.save(file, "JPEG", quality=setting, optimize=True, subsampling="4:2:0")
    size = file.tell()
    return size, *quality(originals[i], np.asarray(Image.open(file).convert("RGB")))


def decoded_quality(task):
    i, decoded = task
    return quality(originals[i], decoded)


def coded(pool, count, codec, setting):
    """A row of another codec."""
    found = pool.map(through_file, [(i, codec, setting) for i in range(count)], chunksize=4)
    means = dict(zip(MEANS, (float(mean) for mean in np.mean(found, axis=0))))
    return {"codec": codec, "setting": setting, **means}


def archived(pool, archive, patch, trained_on, decoded):
    """A row of kuat's: bytes of an index row, and of the whole file over its images."""
    info = archive.info()
    psnr, ssim = np.mean(pool.map(decoded_quality, list(enumerate(decoded)), chunksize=4), axis=0)
    return {
        "codec": "kuat",
        "patch": patch,
        "codewords": info["codewords"],
        "trained_on": trained_on,
        "bytes_per_image": info["bytes_per_image"],
        "codebook_bytes": info["codewords"] * patch * patch * 3,
        "file_bytes_per_image": info["file_len"] / info["samples"],
        "psnr_db": float(psnr),
        "ssim": float(ssim),
        "first_percentile_db": float(np.percentile(archive.psnr, 1)),
    }


def full_size(archive, folder, samples):
    """The row of BC1 at full size, as `kuat compare` has it beside an archive of no fewer bytes."""
    command = [provenance.KUAT, "compare", archive, folder, "--samples", ",".join(map(str, samples)), "--json"]
    compared = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    full = [rival for rival in compared["rivals"] if (rival["budget"], rival["setting"]) == ("row", "full size")]
    return [
        {"codec": rival["codec"], "setting": rival["setting"], **{key: rival[key] for key in MEANS}} for rival in full
    ]
