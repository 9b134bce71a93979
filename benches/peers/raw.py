"""Bytes of a memmap, copied in random order: the least work that loading can be, at 150 kB an image."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from .data import F32, U8
from .peer import Epochs, Peer, normalize_into, normalized

# Images that a thread takes at a time: what stays in its cache between the steps.
CHUNK = 8


class Raw(Peer):
    """`raw[ids]`, as one writes it."""

    name = "raw memmap"
    packages = ("numpy", "torch")
    store = "pixels.npy"

    def batches(self, work):
        return (512,)

    def open(self, work, batch):
        torch.set_num_threads(self.data.workers)
        raw, labels = self.data.pixels, self.data.labels

        def epoch():
            for ids in self.data.random_batches(batch):
                images = raw[ids]
                yield (normalized(torch.from_numpy(images)) if work == F32 else images), labels[ids]

        return Epochs(epoch)


class Kept(Raw):
    """Threads, each with its part of arrays that every batch uses again: as fast as numpy and torch do it."""

    name = "raw memmap, kept arrays"

    def open(self, work, batch):
        # The threads are the pool's.
        torch.set_num_threads(1)
        raw, labels, pool = self.data.pixels, self.data.labels, ThreadPoolExecutor(self.data.workers)
        images = np.empty((batch, *raw.shape[1:]), np.uint8)
        floats = torch.empty((batch, 3, *raw.shape[1:3])) if work == F32 else None

        def copy(ids, part):
            # "clip" writes into `out` straight away; "raise" would go through a copy.
            np.take(raw, ids[part], axis=0, out=images[part], mode="clip")
            if work == F32:
                normalize_into(floats[part], torch.from_numpy(images[part]))

        def epoch():
            for ids in self.data.random_batches(batch):
                parts = [slice(start, min(start + CHUNK, len(ids))) for start in range(0, len(ids), CHUNK)]
                list(pool.map(copy, itertools.repeat(ids), parts))
                yield (images if work == U8 else floats)[: len(ids)], labels[ids]

        return Epochs(epoch)


PEERS = [Raw, Kept]
