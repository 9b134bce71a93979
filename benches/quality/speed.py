"""How fast one thread decodes what was measured, to a batch of bytes in memory, all codecs in turn."""

import statistics
import time

import numpy as np
import simplejpeg

import kuat

from . import images
from .images import JPEG, WEBP

ROUNDS = 7
# What a codec decodes for in a round, at least.
SECONDS = 0.1


def measure(rows, work):
    """Adds images per second to rows whose archives and pictures lie in a folder."""
    kuat.set_num_threads(1)
    pixels = np.load(work / "measured.npy")
    contestants = [(row, decoder(row, pixels, work), []) for row in rows]
    contestants = [(row, decode, speeds) for row, decode, speeds in contestants if decode]
    for _ in range(ROUNDS):
        for _, decode, speeds in contestants:
            speeds.append(len(pixels) * per_second(decode))
    for row, _, speeds in contestants:
        row["images_per_s"] = statistics.median(speeds)


def decoder(row, pixels, work):
    """A function that decodes all images of a row; None for what is not decoded on a CPU."""
    if "archive" in row:
        archive, everything = kuat.KuatArchive(work / row["archive"]), np.arange(len(pixels))
        return lambda: archive.decode_batch(everything, device="cpu")
    if row["codec"] not in (JPEG, WEBP):
        return None
    files, batch = [images.encoded(image, row["codec"], row["setting"]) for image in pixels], np.empty_like(pixels)

    def jpeg():
        for file, image in zip(files, batch):
            simplejpeg.decode_jpeg(file, buffer=image)

    def webp():
        for file, image in zip(files, batch):
            image[...] = images.decoded(file)

    return jpeg if row["codec"] == JPEG else webp


def per_second(decode):
    """How often a second; not counting the first time, which fills caches."""
    decode()
    count, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < SECONDS:
        decode()
        count += 1
    return count / seconds
