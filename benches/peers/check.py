"""Whether a peer yields the right images: each as often as it should come, in another order, with its own label.

Images are told by their looks, so that nothing is asked of a peer but its batches.
"""

from collections import Counter

import numpy as np

from .data import F32, MEAN, STD

# Decoders of JPEG round as they like, and some take a faster transform: how far from what the file holds they may be.
JPEG_DB = 40.0
# A peer that crops the photographs itself may do so by another version of the same library, which rounds otherwise.
CROP_DB = 50.0


class Wrong(Exception):
    """A peer does not do the work."""


def check(peer, work, batches):
    """Goes through an epoch. Returns what its images are equal to, and their mean PSNR to the photographs."""
    data, expected = peer.data, peer.expected
    seen, order, quality, offs = Counter(), [], [], []
    least = JPEG_DB if peer.code == "JPEG" else CROP_DB if peer.crops else np.inf
    for images, labels in batches:
        for image, label in zip(pixels(images, work), labels):
            number = expected.nearest(image)
            db = expected.psnr[number]
            if not np.array_equal(image, expected.images[number]):
                off = psnr(image, expected.images[number])
                offs.append(off)
                if off < least:
                    raise Wrong(f"image {number} differs from what it should be ({off:.1f} dB)")
                db = psnr(image, data.pixels[number])
            seen[int(expected.same[number]), int(label)] += 1
            order.append(number)
            quality.append(db)

    rounds, rest = divmod(len(order), len(data))
    once = Counter(zip(expected.same.tolist(), data.labels.tolist()))
    if rest or not rounds or seen != Counter({key: count * rounds for key, count in once.items()}):
        raise Wrong(f"an epoch has {len(order)} images, not each of the {len(data)} and its label equally often")
    if len(data) > 2 and np.mean(np.diff(order) == 1) > 0.5:
        raise Wrong("the order is not random")
    mean = float(np.mean(quality))
    if peer.code == "JPEG":
        return f"PSNR {mean:.1f} dB", mean
    if offs:
        return f"equal but for rounding, {min(offs):.0f} dB", None
    return ("equal to numpy's decoding" if peer.code else "equal"), None if np.isinf(mean) else mean


class Expected:
    """The images that a peer should yield, and how to tell which is which."""

    def __init__(self, images, photographs):
        self.images = images
        self._looks = np.stack([look(image) for image in images])
        self.psnr = [psnr(*pair) for pair in zip(images, photographs)]
        # Photographs that are there twice cannot be told apart.
        first = {}
        self.same = np.array([first.setdefault(image.tobytes(), number) for number, image in enumerate(photographs)])

    def nearest(self, image):
        return int(np.abs(self._looks - look(image)).sum(1).argmin())


def look(image):
    """64 of an image's pixels."""
    return image[14::28, 14::28].astype(np.int32).ravel()


def pixels(images, work):
    """A batch as bytes, NHWC. Floats must be those of bytes."""
    images = np.asarray(images)
    expected = ("float32", (3, 224, 224)) if work == F32 else ("uint8", (224, 224, 3))
    if (str(images.dtype), images.shape[1:]) != expected or not images.flags.c_contiguous:
        raise Wrong(f"a batch is {images.dtype} {images.shape}, expected {expected[0]} (B, *{expected[1]}), contiguous")
    if work != F32:
        return images
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    values = images * (std * 255)
    values += mean * 255
    rounded = np.rint(values)
    if np.abs(np.subtract(values, rounded, out=values), out=values).max() > 1e-3:
        raise Wrong("floats are not (value / 255 - mean) / std of bytes")
    return rounded.astype(np.uint8).transpose(0, 2, 3, 1)


def psnr(a, b):
    """In dB; infinite for equal images."""
    error = np.square(np.subtract(a, b, dtype=np.float32)).mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")
