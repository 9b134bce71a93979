"""An archive as a torch data set."""

import os
from collections.abc import Iterator

import torch
from torch.utils.data import Dataset, default_collate, get_worker_info

from .. import IMAGENET_MEAN, IMAGENET_STD, _kuat
from ._decoder import GPUDecoder


class GPUDataset(Dataset):
    """The images and labels of an archive as torch tensors, for training.

    Parameters
    ----------
    archive : KuatArchive, str or PathLike
        The archive, or its path.
    device : str, torch.device or int
        As for `GPUDecoder`. With a `DataLoader` that has workers: "cpu", or start them with "spawn".
    normalize : bool or (mean, std)
        True: ImageNet's mean and deviation, for float RGB images; ValueError for others. Or a mean and a deviation,
        floats or one float per channel. False: floats from 0 to 1, or bytes.
    layout : str
        "NCHW" or "NHWC".
    dtype : torch.dtype
        torch.float32, torch.float16, or torch.uint8.

    `dataset[3]` is (image, label), an image without batch axis and an int; `dataset[0:64]`, `dataset[[0, 5, 10]]` and
    `dataset[array or tensor]` are (images, labels), a batch and an int64 tensor on the same device. The label is -1
    where there is none. Negative numbers count from the end, IndexError beyond it. What becomes of damaged samples is
    the archive's `damaged`: `GPUDataset(KuatArchive(path, damaged="mask"))` has zeros and the label -1 for them.
    """

    def __init__(self, archive, device="auto", normalize=True, layout="NCHW", *, dtype=torch.float32):
        if not isinstance(archive, _kuat.KuatArchive):
            archive = _kuat.KuatArchive(os.fspath(archive))
        mean, std = _mean_std(normalize, archive.dimensions[0], dtype)
        self.decoder = GPUDecoder(archive, device, dtype, layout=layout, mean=mean, std=std)

    @property
    def archive(self):
        """The KuatArchive."""
        return self.decoder.archive

    @property
    def classes(self):
        """The names of the labels 0, 1, ...; None if they are not recorded."""
        return self.archive.classes

    def __len__(self):
        return len(self.archive)

    def __getitem__(self, ids):
        _share_cores()
        if hasattr(ids, "__index__") and getattr(ids, "ndim", 0) == 0:
            if self.archive._skips:
                self.archive.decode(ids)  # A single image that is damaged cannot be left out, so it raises.
            images = self.decoder.decode_batch([ids])
            return images[0], self._labels([ids]).item()
        if isinstance(ids, Iterator):
            ids = list(ids)
        if self.archive._skips:
            ids = self.archive.intact(ids)
        return self.decoder.decode_batch(ids), self._labels(ids).to(self.decoder.device)

    def __getitems__(self, ids):
        """The samples that a DataLoader asks for, (image, label) each, decoded as one batch."""
        if type(self).__getitem__ is not GPUDataset.__getitem__:
            # A subclass makes something else of each sample.
            return [self[id] for id in ids]
        return _Samples(*self[ids])

    @staticmethod
    def collate(samples):
        """For `DataLoader(dataset, collate_fn=dataset.collate)`: (images, labels) as torch's default makes them, but
        without another copy if torch (2.0 or later) took the samples as a batch."""
        return samples.batch if isinstance(samples, _Samples) else default_collate(samples)

    def batches(
        self,
        batch_size,
        shuffle=False,
        seed=0,
        epoch=0,
        drop_last=False,
        *,
        rank=0,
        world_size=1,
        prefetch=2,
        resident=False,
    ):
        """The (images, labels) of an epoch, made ahead by threads of kuat's; an iterator whose len is their number.

        `shuffle` gives an order that depends on `seed` and `epoch` alone, the same on every device and machine.
        `drop_last` leaves out a last batch that is not full. Process `rank` of `world_size` gets its share of each
        order. `prefetch` is how many batches may wait. `resident` keeps the index rows of all samples in the GPU's
        memory, sent there once, so that a batch needs only its samples' numbers; `kuat.Error`, or torch's, if they do
        not fit there. Where the CPU decodes it changes nothing.
        """
        order = {"shuffle": shuffle, "seed": seed, "epoch": epoch, "drop_last": drop_last}
        return _Batches(self.decoder, batch_size, shard=(rank, world_size), ahead=prefetch, resident=resident, **order)

    def _labels(self, ids):
        return torch.from_dlpack(self.archive.labels(ids))

    def __repr__(self):
        return (
            f"GPUDataset({self.archive!r}, device={str(self.decoder.device)!r}, decoded by {self.decoder.decoded_by})"
        )


class _Samples(tuple):
    """(image, label) each, and the batch that they are views of. What is made of them is another sequence."""

    def __new__(cls, images, labels):
        samples = super().__new__(cls, zip(images, labels.tolist()))
        samples.batch = images, labels
        return samples


class _Batches:
    """An iterator over the batches of an epoch."""

    def __init__(self, decoder, *args, **options):
        _share_cores()
        self._backend = decoder._backend
        self._batches = self._backend.epoch(*args, **options)

    def __len__(self):
        return len(self._batches)

    def __iter__(self):
        return self

    def __next__(self):
        samples, labels, batch = next(self._batches)
        return self._backend.from_epoch(samples, batch), torch.from_dlpack(labels).to(self._backend.device)


def _mean_std(normalize, channels, dtype):
    """Mean and deviation; None where images are not normalised."""
    if normalize is False:
        return None, None
    if normalize is not True:
        try:
            mean, std = normalize
        except (TypeError, ValueError):
            raise ValueError(f"normalize is {normalize!r}, expected True, False or (mean, std)") from None
        return mean, std
    if dtype == torch.uint8:
        raise ValueError("torch.uint8 images are not normalised; give normalize=False")
    if channels != 3:
        raise ValueError(
            f"ImageNet's mean and deviation are those of 3 channels, and the images have {channels}; "
            "give normalize=False or normalize=(mean, std)"
        )
    return IMAGENET_MEAN, IMAGENET_STD


# The process whose cores were shared out last.
_shared = None


def _share_cores():
    """In a worker of a DataLoader, once: leaves the other workers their share of the cores, unless the user has said
    how many threads there are."""
    global _shared
    worker = get_worker_info()
    if worker is not None and _shared != os.getpid():
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        _kuat.suggest_num_threads(max(1, cores // worker.num_workers))
        _shared = os.getpid()
