"""WebDataset: the JPEG files of the crops in tar files, decoded by workers of a DataLoader."""

import io
import tarfile

import numpy as np
import torch
import webdataset
from PIL import Image

from .data import F32
from .peer import Peer, normalized

# A worker shuffles the images of its shards, and needs some of each.
SHARDS = 16
SHUFFLED = 1000


class Shards(Peer):
    name = "WebDataset"
    packages = ("webdataset", "torch", "pillow")
    store = "webdataset"
    code = "JPEG"

    def write(self, path):
        path.mkdir()
        # Every class in every shard.
        for shard in range(SHARDS):
            with tarfile.open(path / f"{shard:04}.tar", "w") as tar:
                for number in range(shard, len(self.data), SHARDS):
                    add(tar, f"{number:08}.jpg", self.data.jpegs[number].read_bytes())
                    add(tar, f"{number:08}.cls", str(self.data.labels[number]).encode())

    def reference(self):
        return np.stack([np.asarray(Image.open(path)) for path in self.data.jpegs])

    def open(self, work, batch):
        shards = sorted(map(str, self.path.glob("*.tar")))
        samples = webdataset.WebDataset(shards, shardshuffle=SHARDS).shuffle(SHUFFLED).decode("rgb8")
        samples = samples.to_tuple("jpg", "cls").batched(batch, collation_fn=collate(work))
        samples = samples.repeat(self.data.rounds)
        workers = self.data.workers
        return webdataset.WebLoader(samples, batch_size=None, num_workers=workers, persistent_workers=True)


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def collate(work):
    def batch(samples):
        images, labels = zip(*samples)
        images = torch.from_numpy(np.stack(images))
        return (normalized(images) if work == F32 else images), torch.tensor(labels)

    return batch


PEERS = [Shards]
