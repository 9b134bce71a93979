"""A small network trained on original pixels, and on JPEG and layers at equal bytes:
`python -m quality.train --cifar FOLDER --images FOLDER` writes benches/results/quality-training.json."""

import argparse
import itertools
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import kuat

from . import images
from .images import SHARED

RESULT = Path("benches/results/quality-training.json")
TARGET = Path("target/quality")
# Each seed cuts the pictures into parts anew; each part is tested once, on a network trained on the others.
SEEDS, PARTS = 3, 5
EPOCHS, BATCH, WIDTH, RATE, SHIFT = 20, 50, 16, 1e-2, 3
BITS_PER_PIXEL = 0.75, 1.5


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar", type=Path, help="pictures of 32x32, a folder for each class")
    parser.add_argument("--images", type=Path, help="photographs, a folder for each class, brought to 64x64")
    parser.add_argument("--books", type=Path, help="an archive with the codebooks; the built-in ones by default")
    parser.add_argument("--most", type=int, help="pictures of a class")
    args = parser.parse_args()
    began = time.monotonic()
    books = kuat.KuatArchive(args.books) if args.books else "builtin"
    rows = []
    for folder, side in (args.cifar, 32), (args.images, 64):
        if folder:
            about = {"set": folder.resolve().name, "side": side}
            rows += [{**about, **row} for row in compare(folder, side, books, args.most)]
    result = {"seeds": SEEDS, "parts": PARTS, "epochs": EPOCHS, "torch": torch.__version__}
    result["books"] = args.books.stem if args.books else "the built-in ones"
    result["seconds"] = round(time.monotonic() - began)
    images.write(RESULT, result, rows)


def compare(folder, side, books, most):
    """A row for the original pixels, and for each codec and rate, with the share of pictures that were recognised."""
    originals, labels = read(folder, side, most)
    rows, pixels = [{"codec": "original pixels", "bytes_per_image": originals[0].size}], [originals]
    for bits in BITS_PER_PIXEL:
        for codec, size, decoded in coded(originals, books, bits * side * side / 8):
            rows.append({"codec": codec, "bytes_per_image": size})
            pixels.append(decoded)
    tasks = list(itertools.product(range(len(rows)), range(SEEDS), range(PARTS)))
    # Children begin with what is here, pixels too.
    with multiprocessing.get_context("fork").Pool(len(os.sched_getaffinity(0)), start, (pixels, labels)) as pool:
        right = np.array(pool.map(run, tasks, chunksize=1)).reshape(len(rows), SEEDS, PARTS, 2)
    for row, originals_tested, coded_tested in zip(rows, right[..., 0], right[..., 1]):
        # Of the same pictures by networks that began alike.
        apart = originals_tested - right[0, ..., 0]
        row |= {
            "images": len(labels),
            "accuracy": originals_tested.mean(axis=1).tolist(),
            "accuracy_on_coded": coded_tested.mean(axis=1).tolist(),
            "difference": apart.mean(),
            "standard_error": apart.std(ddof=1) / apart.size**0.5,
        }
    return rows


def read(folder, side, most):
    pictures, labels = [], []
    for label, group in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        for path in images.spread(images.files(group), most):
            pictures.append(images.prepared(path, (side, side)))
            labels.append(label)
    return np.stack(pictures), np.array(labels)


def coded(originals, books, rate):
    """Pictures coded in so many bytes: codec, bytes of an image, what is decoded."""
    path = TARGET / "training.qvq"
    TARGET.mkdir(parents=True, exist_ok=True)
    options = {"codec": "layers", "codebook": books, "bytes_per_image": round(rate)}
    kuat.encode(list(originals), path, size=originals.shape[1], progress=False, **options)
    archive = kuat.KuatArchive(path)
    size = archive.info()["bytes_per_image"]
    yield "layers", size, archive.decode_batch(range(len(originals)), device="cpu")
    files = images.at_least(size, SHARED, originals)
    size = np.mean([images.counted(file, SHARED) for file in files])
    yield SHARED, size, np.stack([images.decoded(file) for file in files])


def start(pixels, labels):
    """What a process trains with."""
    global data
    data = [tensor(each) for each in pixels], torch.from_numpy(labels)
    torch.set_num_threads(1)


def tensor(pixels):
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 120) / 60


def run(task):
    """Trains on one coding of all parts but one. Returns what share of that part is recognised, original and coded."""
    coding, seed, part = task
    pixels, labels = data
    random = np.random.default_rng(seed)
    parts = np.array_split(random.permutation(len(labels)), PARTS)
    tested = parts.pop(part)
    network = trained(pixels[coding], labels, np.concatenate(parts), random, seed * PARTS + part)
    with torch.no_grad():
        found = [network(each[tested]).argmax(1) == labels[tested] for each in (pixels[0], pixels[coding])]
    return [each.float().mean().item() for each in found]


def trained(pixels, labels, chosen, random, seed):
    torch.manual_seed(seed)
    network = convolutions(pixels.shape[-1])
    steps = EPOCHS * (len(chosen) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for step in range(steps):
        at = step % (len(chosen) // BATCH) * BATCH
        if at == 0:
            random.shuffle(chosen)
        batch = chosen[at : at + BATCH]
        # Mirrored or not, and moved by a few pixels.
        images = pixels[batch].flip(3) if random.random() < 0.5 else pixels[batch]
        images = torch.roll(images, tuple(random.integers(-SHIFT, SHIFT + 1, 2).tolist()), (2, 3))
        loss = nn.functional.cross_entropy(network(images), labels[batch], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def convolutions(side):
    """Halves the sides down to 8."""
    layers, channels = [], 3
    for number in range(3 if side == 32 else 4):
        width = WIDTH << min(number, 2)
        if number:
            layers.append(nn.MaxPool2d(2))
        # Large pictures are halved at once, which is where the time would go.
        stride = 2 if side > 32 and number == 0 else 1
        layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


if __name__ == "__main__":
    main()
