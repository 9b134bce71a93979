"""The photographs that all peers yield, cropped once: as pixels, and as JPEG files."""

import hashlib
import json
from functools import cached_property
from pathlib import Path

import numpy as np

# The two kinds of batches: bytes, or floats normalised as ImageNet's.
U8, F32 = "u8 NHWC", "f32 NCHW"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE = 224
# Of the JPEG files, with colours at half the resolution, as most files have.
QUALITY = 90
# Images of an epoch at least: a small folder goes round more than once, so that beginning an epoch costs nobody much.
EPOCH = 2048
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}


class Data:
    """Photographs in a folder per class, their crops in `folder`, and a place for what peers make of them."""

    def __init__(self, images, folder, workers):
        self.images, self.folder, self.workers = Path(images), Path(folder), workers

    @cached_property
    def pixels(self):
        """(N, 224, 224, 3) uint8, mapped."""
        return np.load(self.folder / "pixels.npy", "r")

    @cached_property
    def labels(self):
        return np.load(self.folder / "labels.npy")

    @cached_property
    def classes(self):
        return json.loads((self.folder / "classes.json").read_text())

    @cached_property
    def jpegs(self):
        """A JPEG file of each crop."""
        names = sorted(self.folder.glob("jpeg/*/*.jpg"), key=lambda path: path.stem)
        assert len(names) == len(self)
        return names

    def __len__(self):
        return len(self.labels)

    @property
    def rounds(self):
        """How many times an epoch goes through the photographs."""
        return -(-EPOCH // len(self))

    def order(self, rounds=None):
        """Numbers of samples in random order, anew at each call."""
        return np.concatenate([np.random.permutation(len(self)) for _ in range(rounds or self.rounds)])

    def random_batches(self, batch):
        """The numbers of an epoch's batches."""
        order = self.order()
        return [order[start : start + batch] for start in range(0, len(order), batch)]


def files(images):
    """(path, label) of each photograph and the classes' names, in the order of torchvision's ImageFolder."""
    images = Path(images)
    classes = sorted(path.name for path in images.iterdir() if path.is_dir())
    found = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((images / name).rglob("*"), key=str)
        if path.suffix.lower() in SUFFIXES
    ]
    if not found:
        raise SystemExit(f"no photographs in folders of {images}; expected a folder per class, as for ImageFolder")
    return found, classes


def prepare(images, work):
    """The folder below `work` with the crops of these photographs, made unless it is there."""
    from PIL import Image
    from tqdm import tqdm

    found, classes = files(images)
    listing = [(str(path.relative_to(images)), path.stat().st_size) for path, _ in found]
    folder = Path(work) / f"{Path(images).resolve().name}-{hashlib.sha256(repr(listing).encode()).hexdigest()[:8]}"
    if (folder / "classes.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in classes:
        (folder / "jpeg" / name).mkdir(parents=True, exist_ok=True)
    pixels = np.lib.format.open_memmap(folder / "pixels.npy", "w+", np.uint8, (len(found), SIDE, SIDE, 3))
    for number, (path, label) in enumerate(tqdm(found, "cropping", unit=" images")):
        with Image.open(path) as image:
            image = crop(image.convert("RGB"))
        pixels[number] = image
        image.save(folder / "jpeg" / classes[label] / f"{number:08}.jpg", quality=QUALITY, subsampling="4:2:0")
    pixels.flush()
    np.save(folder / "labels.npy", np.array([label for _, label in found], np.int64))
    # Last: it says that the rest is whole.
    (folder / "classes.json").write_text(json.dumps(classes))
    return folder


def crop(image):
    """What torchvision's Resize(224) and CenterCrop(224) make of an image, without torchvision."""
    from PIL import Image

    width, height = image.size
    short, long = min(width, height), max(width, height)
    if short != SIDE:
        far = SIDE * long // short
        width, height = (SIDE, far) if width <= height else (far, SIDE)
        image = image.resize((width, height), Image.BILINEAR)
    left, top = round((width - SIDE) / 2), round((height - SIDE) / 2)
    return image.crop((left, top, left + SIDE, top + SIDE))
