"""kuat on the CPU, with patches of 4x4 and 2x2."""

import numpy as np
import torch

import kuat

from .data import F32
from .peer import Epochs, Peer


class Kuat(Peer):
    packages = ("kuat", "torch")
    code = "kuat"
    patch = None

    def __init__(self, data):
        super().__init__(data)
        kuat.set_num_threads(data.workers)
        torch.set_num_threads(data.workers)

    @property
    def store(self):
        return f"kuat-{self.patch}.qvq"

    @property
    def facts(self):
        archive = kuat.KuatArchive(self.path)
        return {"patch": self.patch, "codewords": archive.codebook_size, "codebook_bytes": archive.codebook.nbytes}

    def write(self, path):
        photographs = list(zip(self.data.pixels, self.data.labels.tolist()))
        kuat.encode(photographs, path, patch=self.patch, classes=self.data.classes, progress=False)

    def bytes_per_image(self):
        """Those of an index row: there is one codebook for any number of images."""
        return kuat.KuatArchive(self.path).info()["bytes_per_image"]

    def batches(self, work):
        # The sizes of the table that the original published.
        return (64, 512) if work == F32 else (512,)

    def reference(self):
        """Numpy's gather of indices and codebook."""
        archive = kuat.KuatArchive(self.path)
        (down, across), (tall, wide) = archive.grid_shape, archive.patch_shape
        patches = archive.codebook[archive.get_indices_batch(slice(None))]
        patches = patches.reshape(len(archive), down, across, tall, wide, 3)
        return patches.transpose(0, 1, 3, 2, 4, 5).reshape(len(archive), down * tall, across * wide, 3)


class Batches(Kuat):
    """Epochs decoded ahead by threads of kuat's."""

    def open(self, work, batch):
        if work == F32:
            dataset = kuat.GPUDataset(self.path, "cpu")
            return Epochs(lambda: self.epoch(lambda number: dataset.batches(batch, shuffle=True, epoch=number)))
        dataset = kuat.KuatDataset(self.path, batch, shuffle=True, device="cpu")
        return Epochs(lambda: ((each["images"], each["labels"]) for each in self.epoch(dataset.epoch)))

    def epoch(self, batches):
        first = np.random.randint(1 << 30)
        for number in range(first, first + self.data.rounds):
            yield from batches(number)


class ByIds(Kuat):
    """Random samples, asked for by number."""

    def open(self, work, batch):
        if work == F32:
            dataset = kuat.GPUDataset(self.path, "cpu")
            return Epochs(lambda: (dataset[ids] for ids in self.data.random_batches(batch)))
        archive = kuat.KuatArchive(self.path)

        def epoch():
            for ids in self.data.random_batches(batch):
                yield archive.decode_batch(ids, device="cpu"), archive.labels(ids)

        return Epochs(epoch)


class Batches4(Batches):
    name, patch = "kuat 4x4, batches", 4


class Batches2(Batches):
    name, patch = "kuat 2x2, batches", 2


class ByIds4(ByIds):
    name, patch = "kuat 4x4, [ids]", 4


class ByIds2(ByIds):
    name, patch = "kuat 2x2, [ids]", 2


PEERS = [Batches4, Batches2, ByIds4, ByIds2]
