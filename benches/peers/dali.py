"""NVIDIA DALI without a GPU: the JPEG files of the crops, decoded by its threads."""

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def, types

from .data import F32, MEAN, STD
from .peer import Epochs, Peer

# Batches that it makes ahead.
QUEUE = 2


class Dali(Peer):
    name = "DALI, CPU"
    packages = ("nvidia-dali-cuda120", "torch")
    code = "JPEG"
    # Its pipeline runs on from epoch to epoch.
    ready = QUEUE

    def files(self):
        return self.data.jpegs

    def reference(self):
        from PIL import Image

        return np.stack([np.asarray(Image.open(path)) for path in self.data.jpegs])

    def open(self, work, batch):
        @pipeline_def(batch_size=batch, num_threads=self.data.workers, device_id=None, prefetch_queue_depth=QUEUE)
        def pipeline():
            files, labels = fn.readers.file(
                files=[str(path) for path in self.data.jpegs],
                labels=self.data.labels.tolist(),
                shuffle_after_epoch=True,
                name="reader",
            )
            images = fn.decoders.image(files, device="cpu")
            if work == F32:
                mean, std = ([value * 255 for value in values] for values in (MEAN, STD))
                images = fn.crop_mirror_normalize(images, dtype=types.FLOAT, output_layout="CHW", mean=mean, std=std)
            return images, labels

        running = pipeline()
        running.build()

        def batches():
            # They reach from one epoch into the next: split there.
            left = epoch = len(self.data) * self.data.rounds
            while True:
                images, labels = (np.asarray(output.as_tensor()) for output in running.run())
                images = torch.from_numpy(images) if work == F32 else images
                if left >= len(images):
                    left -= len(images)
                    yield images, labels[:, 0]
                else:
                    yield images[:left], labels[:left, 0]
                    yield None
                    yield images[left:], labels[left:, 0]
                    left += epoch - len(images)
                if left == 0:
                    yield None
                    left = epoch

        stream = batches()
        return Epochs(lambda: iter(lambda: next(stream), None))


PEERS = [Dali]
