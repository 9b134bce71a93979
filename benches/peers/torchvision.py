"""torchvision's ImageFolder in a DataLoader: the files as they came, resized and cropped."""

from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader, Sampler
from torchvision import transforms
from torchvision.datasets import ImageFolder

from .data import F32, MEAN, SIDE, STD
from .peer import Peer

CROP = [transforms.Resize(SIDE), transforms.CenterCrop(SIDE)]
BYTES = transforms.Lambda(np.array)
FLOATS = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]


class Files(Peer):
    name = "torchvision ImageFolder"
    packages = ("torchvision", "torch")
    crops = True

    def files(self):
        return [Path(path) for path, _ in ImageFolder(self.data.images).samples]

    def open(self, work, batch):
        steps = CROP + (FLOATS if work == F32 else [BYTES])
        folder = ImageFolder(self.data.images, transforms.Compose(steps))
        workers = self.data.workers
        return DataLoader(folder, batch, sampler=Order(self.data), num_workers=workers, persistent_workers=True)


class Order(Sampler):
    """Random, anew at each epoch."""

    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return iter(self.data.order().tolist())

    def __len__(self):
        return self.data.rounds * len(self.data)


PEERS = [Files]
