"""An archive as numpy batches, epoch by epoch."""

from . import _kuat


class KuatDataset:
    """The batches of an archive as numpy arrays.

    Parameters
    ----------
    path : str, PathLike or KuatArchive
        The archive.
    batch_size : int
        Images per batch; the last of an epoch may have fewer.
    shuffle : bool
        Whether each epoch has a random order of its own. Iterating over the data set goes through the epochs: the first
        `for` is epoch 0, the next epoch 1.
    seed : int
        Chooses the random orders; the same seed and epoch give the same order on every machine.
    drop_last : bool
        Whether to leave out a last batch that is not full.
    layout, dtype, mean, std, device
        As for `KuatArchive.decode_batch`.
    resident : bool
        Whether a GPU keeps the index rows of all samples in its memory, sent there once, so that a batch needs only its
        samples' numbers; `kuat.Error` if they do not fit there. Where the CPU decodes it changes nothing.
    """

    def __init__(
        self,
        path,
        batch_size=64,
        shuffle=False,
        seed=0,
        drop_last=False,
        layout="NHWC",
        *,
        dtype="uint8",
        mean=None,
        std=None,
        device="auto",
        resident=False,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        self.archive = path if isinstance(path, _kuat.KuatArchive) else _kuat.KuatArchive(path)
        self.batch_size = batch_size
        self._next = 0
        self._order = {"shuffle": shuffle, "seed": seed, "drop_last": drop_last}
        self._output = {"dtype": dtype, "layout": layout, "mean": mean, "std": std, "device": device}
        self._resident = resident
        # Wrong arguments should not turn up in the first epoch.
        self.archive.decode_batch([], **self._output)
        self.archive._batches(batch_size, ahead=0, packed=True, **self._order)

    def __len__(self):
        """The number of batches of an epoch."""
        full, rest = divmod(len(self.archive), self.batch_size)
        return full + (rest > 0 and not self._order["drop_last"])

    def __iter__(self):
        """The batches of the next epoch; the first is 0."""
        epoch, self._next = self._next, self._next + 1
        return self.epoch(epoch)

    def epoch(self, epoch=0):
        """Yields the batches of an epoch, decoded ahead by threads of their own, as dicts.

        "images" is an array as `KuatArchive.decode_batch` returns it, "labels" an int64 array, -1 where there is no
        label, and "captions" a list of str, or None if the archive has no captions. If the archive's `damaged` is
        "skip" or "mask", there are also "samples", their numbers, int64, and "intact", a boolean array, False where an
        image is masked because its sample is damaged.
        """
        batches = self.archive._batches(
            self.batch_size, epoch=epoch, resident=self._resident, **self._order, **self._output
        )
        return (self._batch(*batch) for batch in batches)

    def _batch(self, samples, labels, images):
        batch = {"images": images.numpy(), "labels": labels, "captions": self.archive.captions(samples)}
        if not self.archive._raises:
            batch["samples"] = samples
            batch["intact"] = samples >= 0
            batch["intact"][images.masked] = False
        return batch

    def __repr__(self):
        return f"KuatDataset({self.archive!r}, batch_size={self.batch_size})"
