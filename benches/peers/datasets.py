"""Hugging Face's datasets: the JPEG files of the crops in Arrow files, decoded by workers of a DataLoader."""

import datasets
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Sampler

from .data import F32
from .peer import Peer, normalized


class Arrow(Peer):
    name = "Hugging Face datasets"
    packages = ("datasets", "pyarrow", "torch", "pillow")
    store = "datasets"
    code = "JPEG"

    def write(self, path):
        files = [{"bytes": file.read_bytes(), "path": None} for file in self.data.jpegs]
        features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
        columns = {"image": files, "label": self.data.labels.tolist()}
        datasets.Dataset.from_dict(columns, features).save_to_disk(str(path))

    def reference(self):
        return np.stack([np.asarray(Image.open(path)) for path in self.data.jpegs])

    def open(self, work, batch):
        def transform(samples):
            images = torch.from_numpy(np.stack([np.asarray(image) for image in samples["image"]]))
            images = normalized(images) if work == F32 else images
            return {"image": images, "label": torch.tensor(samples["label"])}

        table = datasets.load_from_disk(str(self.path)).with_transform(transform)
        workers = self.data.workers
        # The sampler gives whole batches, which the table reads in one piece.
        loader = DataLoader(
            table, batch_size=None, sampler=Order(self.data, batch), num_workers=workers, persistent_workers=True
        )
        return Pairs(loader)


class Order(Sampler):
    """Batches of numbers, random, anew at each epoch."""

    def __init__(self, data, batch):
        self.data, self.batch = data, batch

    def __iter__(self):
        return (ids.tolist() for ids in self.data.random_batches(self.batch))

    def __len__(self):
        return len(self.data.random_batches(self.batch))


class Pairs:
    """(images, labels) of a loader's dicts."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        return ((batch["image"], batch["label"]) for batch in self.loader)


PEERS = [Arrow]
