"""libjpeg-turbo in threads: simplejpeg decodes the JPEG files of the crops straight into their places in a batch."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import simplejpeg
import torch

from .data import F32, SIDE
from .peer import Epochs, Peer, normalize_into

# Images that a thread takes at a time.
CHUNK = 8


class Threads(Peer):
    name = "simplejpeg, threads"
    packages = ("simplejpeg", "torch")
    code = "JPEG"

    def files(self):
        return self.data.jpegs

    def reference(self):
        return np.stack([simplejpeg.decode_jpeg(path.read_bytes()) for path in self.data.jpegs])

    def open(self, work, batch):
        # The threads are the pool's.
        torch.set_num_threads(1)
        data, paths, pool = self.data, self.data.jpegs, ThreadPoolExecutor(self.data.workers)

        def decode(ids, images, floats):
            for number, image in zip(ids, images):
                simplejpeg.decode_jpeg(paths[number].read_bytes(), buffer=image)
            if work == F32:
                normalize_into(floats, torch.from_numpy(images))

        def memory():
            images = np.empty((batch, SIDE, SIDE, 3), np.uint8)
            return images, torch.empty((batch, 3, SIDE, SIDE)) if work == F32 else images

        # One that is used, one that is made, one to spare.
        memories = itertools.cycle([memory() for _ in range(3)])

        def begin(ids):
            images, floats = (array[: len(ids)] for array in next(memories))
            parts = [slice(start, start + CHUNK) for start in range(0, len(ids), CHUNK)]
            waiting = [pool.submit(decode, ids[part], images[part], floats[part]) for part in parts]
            return ids, floats, waiting

        def finish(ids, images, waiting):
            for future in waiting:
                future.result()
            return images, data.labels[ids]

        def epoch():
            # A batch ahead, so that threads have work while a batch is used.
            ahead = None
            for ids in data.random_batches(batch):
                current, ahead = ahead, begin(ids)
                if current:
                    yield finish(*current)
            yield finish(*ahead)

        return Epochs(epoch)


PEERS = [Threads]
