"""Measures how fast kuat and its rivals make batches for training on one machine, in one run, in turn.

Every peer yields the same photographs, 224x224, as float32 NCHW normalised as ImageNet's, in a random order of each
epoch, with nothing done to a batch but making it. Before anything is timed each one's images are checked. A timing
covers whole epochs until `--seconds` have passed; the peers take turns for `--rounds` rounds, and the medians count.

    python benches/peers.py --images imagewoof --json peers.json
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from tqdm import tqdm

import kuat

SIDE = 224
MEAN, STD = (torch.tensor(values).view(1, 3, 1, 1) for values in (kuat.IMAGENET_MEAN, kuat.IMAGENET_STD))
CROP = [transforms.Resize(SIDE), transforms.CenterCrop(SIDE)]
NORMALIZE = [transforms.ToTensor(), transforms.Normalize(kuat.IMAGENET_MEAN, kuat.IMAGENET_STD)]


class ByIds:
    """`GPUDataset` on the CPU, asked for random samples."""

    def __init__(self, archive, batch_size):
        self.name = f"kuat {patch(archive)}, dataset[ids], batch {batch_size}"
        self.dataset, self.batch_size = kuat.GPUDataset(archive, "cpu"), batch_size

    def epoch(self, number):
        for ids in torch.randperm(len(self.dataset)).split(self.batch_size):
            yield self.dataset[ids]

    def check(self):
        ids = torch.randperm(len(self.dataset))[: self.batch_size]
        images, labels = self.dataset[ids]
        check_decoded(self.dataset.archive, ids, images, labels)


class Batches:
    """`GPUDataset.batches` on the CPU."""

    def __init__(self, archive, batch_size):
        self.name = f"kuat {patch(archive)}, dataset.batches, batch {batch_size}"
        self.dataset, self.batch_size = kuat.GPUDataset(archive, "cpu"), batch_size

    def epoch(self, number):
        return self.dataset.batches(self.batch_size, shuffle=True, epoch=number)

    def check(self):
        order = self.dataset.archive._batches(self.batch_size, shuffle=True, epoch=1, packed=True)
        for (ids, _, _), (images, labels) in zip(order, self.epoch(1)):
            check_decoded(self.dataset.archive, ids, images, labels)


class RawPixels:
    """Bytes of a memmap, copied in random order and made floats by torch: of the usual ways the fastest, whose first
    step brings planes and floats at once, and whose others work in place."""

    def __init__(self, path, labels, folder, batch_size):
        self.name = f"raw uint8 memmap through torch, batch {batch_size}"
        self.raw, self.labels, self.folder, self.batch_size = np.load(path, "r"), labels, folder, batch_size

    def __getitem__(self, ids):
        images = torch.from_numpy(self.raw[ids.numpy()]).permute(0, 3, 1, 2)
        images = images.to(torch.float32, memory_format=torch.contiguous_format)
        return images.div_(255).sub_(MEAN).div_(STD), self.labels[ids]

    def epoch(self, number):
        for ids in torch.randperm(len(self.raw)).split(self.batch_size):
            yield self[ids]

    def check(self):
        """They are what torchvision makes of the files."""
        ids = torch.randperm(len(self.raw))[:16]
        images, labels = self[ids]
        expected, numbers = zip(*(self.folder[i] for i in ids))
        assert images.is_contiguous() and labels.tolist() == list(numbers)
        assert torch.allclose(images, torch.stack(expected), atol=1e-5)


class Files:
    """torchvision's ImageFolder in a DataLoader, whose workers stay from epoch to epoch."""

    def __init__(self, folder, batch_size, workers):
        self.name = f"torchvision ImageFolder, {workers} workers, batch {batch_size}"
        self.folder = folder
        self.loader = DataLoader(folder, batch_size, shuffle=True, num_workers=workers, persistent_workers=True)

    def epoch(self, number):
        return iter(self.loader)

    def check(self):
        labels = torch.cat([labels for images, labels in self.epoch(0) if images.shape[1:] == (3, SIDE, SIDE)])
        assert sorted(labels.tolist()) == sorted(self.folder.targets)


def patch(archive):
    return "x".join(str(side) for side in archive.patch_shape)


def check_decoded(archive, ids, images, labels):
    """Images are those that numpy makes of indices and codebook."""
    (down, across), (tall, wide) = archive.grid_shape, archive.patch_shape
    patches = archive.codebook[archive.get_indices_batch(ids)].reshape(len(ids), down, across, tall, wide, 3)
    pixels = patches.transpose(0, 5, 1, 3, 2, 4).reshape(len(ids), 3, down * tall, across * wide)
    expected = (torch.from_numpy(pixels) / 255 - MEAN) / STD
    assert images.is_contiguous() and torch.allclose(images, expected, atol=1e-5)
    assert labels.tolist() == archive.labels(ids).tolist()


def prepared(images, target):
    """The archives with patches of 4 and of 2, and the pixels as .npy, made once from the same photographs."""
    target.mkdir(parents=True, exist_ok=True)
    archives = []
    for side in (4, 2):
        path = target / f"{images.name}-{side}.qvq"
        if not path.exists():
            kuat.encode(images, path, size=SIDE, patch=side)
        archives.append(kuat.KuatArchive(path))
    raw = target / f"{images.name}.npy"
    if not raw.exists():
        folder = ImageFolder(images, transforms.Compose(CROP))
        pixels = np.stack([np.asarray(image) for image, _ in tqdm(folder, "reading")])
        np.save(raw, pixels)
    return archives, raw


def speed(peer, seconds, epoch):
    """Images per second over whole epochs."""
    images, start = 0, time.perf_counter()
    while True:
        for batch, _ in peer.epoch(epoch):
            images += len(batch)
        epoch += 1
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return images / elapsed


def machine():
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line), "")
    return {
        "cpu": cpu or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "kuat": kuat.__version__,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("KUAT_TEST_IMAGES", "")) / "imagewoof"
    parser.add_argument("--images", type=Path, default=default, help="a folder with one folder per class")
    parser.add_argument("--target", type=Path, default=Path("target/bench"), help="where archives and pixels are kept")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="the least time of a timing")
    parser.add_argument("--workers", type=int, default=2, help="of the DataLoader")
    parser.add_argument("--json", type=Path, help="where to write the measurements")
    args = parser.parse_args()

    torch.set_num_threads(len(os.sched_getaffinity(0)))  # Some builds take half of virtual machines' cores.
    archives, raw = prepared(args.images, args.target)
    folder = ImageFolder(args.images, transforms.Compose(CROP + NORMALIZE))
    pixels = RawPixels(raw, torch.tensor(folder.targets), folder, 256)
    files = [Files(folder, batch_size, args.workers) for batch_size in (64, 256)]
    ours = [kind(archive, 256) for archive in archives for kind in (ByIds, Batches)]
    peers = [*ours, pixels, *files]
    for peer in tqdm(peers, "checking"):
        peer.check()

    rounds = {peer.name: [] for peer in peers}
    with tqdm(total=args.rounds * len(peers), desc="measuring") as progress:
        for number in range(args.rounds):
            for peer in peers:
                rounds[peer.name].append(speed(peer, args.seconds, 1000 * number))
                progress.update()

    medians = {name: statistics.median(speeds) for name, speeds in rounds.items()}
    best_files = max(medians[peer.name] for peer in files)
    print(f"{len(folder)} photographs, {SIDE}x{SIDE}; {machine()}")
    heading = f"images/s in {args.rounds} rounds"
    print(f"{heading:44} {'median':>8} {'least':>8} {'most':>8} {'/raw':>6} {'/files':>6}")
    for name, speeds in rounds.items():
        median = medians[name]
        ratios = f"{median / medians[pixels.name]:6.1f} {median / best_files:6.1f}"
        print(f"{name:44} {median:8,.0f} {min(speeds):8,.0f} {max(speeds):8,.0f} {ratios}")
    if args.json:
        result = {"machine": machine(), "images": len(folder), "images_per_second": rounds, "medians": medians}
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
