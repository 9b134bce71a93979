"""What decodes to torch tensors.

A backend is made of an archive, a place and an output (dtype, layout, mean and std, as for `KuatArchive.decode_batch`),
and gives batches as tensors on `device`. `GPUDecoder` and `GPUDataset` know no more of it than `Backend` shows, so
another way from an adapter to torch, such as memory that both share, is one more class here and a line in `backend`.
"""

import numpy as np
import torch

from ._device import torch_device

# Codewords that become floats at once: bounds the memory that takes.
_CHUNK = 1 << 18
# Index rows that are sent to a device at once.
_ROWS = 1 << 10


def backend(archive, device, output):
    """The backend for what a caller named."""
    found = torch_device(device)
    if found is None:
        return Native(archive, device, output)
    if found.type == "cpu":
        return Native(archive, "cpu", output)
    return Gather(archive, found, output) if archive.codec == "vq" else Sent(archive, found, output)


class Backend:
    """One way from an archive to tensors: (batch, channels, height, width) or (batch, height, width, channels)."""

    # Where the tensors are.
    device = torch.device("cpu")
    # What does the gather.
    decoded_by = "cpu"

    def from_indices(self, indices):
        """Images of an int64 tensor (batch, grid_size) on any device, whose values are codewords' numbers."""
        raise NotImplementedError

    def from_samples(self, ids):
        """Images of samples, `ids` as for `KuatArchive.decode_batch`."""
        raise NotImplementedError

    def epoch(self, *args, resident=False, **options):
        """`KuatArchive._batches` of what `from_epoch` takes; `resident` as for `GPUDataset.batches`."""
        raise NotImplementedError

    def from_epoch(self, samples, batch):
        """Images of samples and a `kuat.Batch` that come from `epoch`."""
        raise NotImplementedError


class Native(Backend):
    """Kuat decodes, on the CPU or an adapter, into host memory that the tensors share."""

    def __init__(self, archive, device, output):
        self._archive = archive
        self._output = {**output, "device": device}
        # Also finds out now if an argument is wrong or the device does not work.
        self.decoded_by = archive.decode_batch([], **self._output, to="dlpack").device

    def from_indices(self, indices):
        # Torch has no 32-bit unsigned integers of old; the values are the same.
        rows = np.from_dlpack(indices.to("cpu", torch.int32).contiguous()).view(np.uint32)
        return torch.from_dlpack(self._archive.decode_indices(rows, **self._output, to="dlpack"))

    def from_samples(self, ids):
        return torch.from_dlpack(self._archive.decode_batch(ids, **self._output, to="dlpack"))

    def epoch(self, *args, **options):
        return self._archive._batches(*args, **options, **self._output)

    def from_epoch(self, samples, batch):
        return torch.from_dlpack(batch)


class Sent(Native):
    """Kuat decodes to bytes, which travel to a device of torch's and become output values there.

    For codecs whose rows torch does not gather itself.
    """

    def __init__(self, archive, device, output):
        archive.decode_batch([], **output, device="cpu")  # Finds out if an argument is wrong.
        super().__init__(archive, "auto", {**output, "dtype": torch.uint8, "mean": None, "std": None})
        self.device, self.decoded_by = device, f"{self.decoded_by}, sent to {device}"
        channels = archive.dimensions[0]
        self._table = None if output["dtype"] == torch.uint8 else _table(output, channels, device)
        channel = torch.arange(channels, device=device)
        self._channel = channel[:, None, None] if output["layout"].lower() == "nchw" else channel

    def from_samples(self, ids):
        return self._sent(self._archive.decode_batch(ids, **self._output, to="dlpack"))

    def from_epoch(self, samples, batch):
        return self._sent(batch)

    def _sent(self, batch):
        pixels = torch.from_dlpack(batch)
        if self.device.type == "cuda":
            # From pinned memory the copy overlaps with what the GPU still does for the batch before.
            pixels = pixels.pin_memory()
        pixels = pixels.to(self.device, non_blocking=self.device.type == "cuda")
        if self._table is None:
            return pixels
        return _masked(self._table[pixels.long() * self._channel.numel() + self._channel], batch)


class Gather(Backend):
    """Torch decodes on a device of its own: index rows travel there as stored, the codebook once, as output values."""

    def __init__(self, archive, device, output):
        archive.decode_batch([], **output, device="cpu")  # Finds out if an argument is wrong.
        self._archive = archive
        self.device, self.decoded_by = device, f"torch on {device}"
        self._planes = output["layout"].lower() == "nchw"
        self._rows = None
        self._codebook = self._values(output)
        self._bits = archive.index_bits
        if self._bits not in (8, 16, 32):
            first = torch.arange(archive.grid_size, device=device) * self._bits
            self._word, self._shift = first // 32, first % 32

    def from_indices(self, indices):
        archive = self._archive
        channels, height, width = archive.dimensions
        patches = self._codebook.index_select(0, indices.to(self.device).reshape(-1))
        patches = patches.view(-1, *archive.grid_shape, *archive.patch_shape, channels)
        _, down, across, tall, wide, _ = patches.shape
        if self._planes:
            images = patches.permute(0, 5, 1, 3, 2, 4).reshape(-1, channels, down * tall, across * wide)
            return images[:, :, :height, :width].contiguous()
        images = patches.permute(0, 1, 3, 2, 4, 5).reshape(-1, down * tall, across * wide, channels)
        return images[:, :height, :width].contiguous()

    def from_samples(self, ids):
        return self._from_rows(self._archive.get_packed_batch(ids).base)

    def epoch(self, *args, resident=False, **options):
        if resident and self._rows is None:
            self._rows = self._all_rows()
        # Resident rows are not made into batches.
        return self._archive._batches(*args, **options, packed=True, resident=resident)

    def from_epoch(self, samples, batch):
        if len(batch) == len(samples):
            return self._from_rows(batch)
        rows = self._rows.index_select(0, torch.from_dlpack(samples).to(self.device))
        return _masked(self.from_indices(self._unpacked(rows).clamp_(max=len(self._codebook) - 1)), batch)

    def _all_rows(self):
        """The index rows of all samples on the device, sent there piece by piece."""
        archive = self._archive
        length = archive.get_packed_batch([]).shape[1]
        rows = torch.empty((len(archive), length), dtype=torch.uint8, device=self.device)
        for start in range(0, len(archive), _ROWS):
            piece = torch.from_dlpack(archive._all_packed(slice(start, start + _ROWS)))
            rows[start : start + _ROWS].copy_(piece)
        return rows

    def _from_rows(self, batch):
        rows = torch.from_dlpack(batch)
        if self.device.type == "cuda":
            # From pinned memory the copy overlaps with what the GPU still does for the batch before.
            rows = rows.pin_memory()
        indices = self._unpacked(rows.to(self.device, non_blocking=self.device.type == "cuda"))
        return _masked(self.from_indices(indices.clamp_(max=len(self._codebook) - 1)), batch)

    def _unpacked(self, rows):
        """The indices in rows as stored, which FORMAT.md describes, as int64 (batch, grid_size)."""
        if self._bits == 8:
            return rows.long()
        if self._bits == 16:
            return _reinterpreted(rows, torch.int16) & 0xFFFF
        words = _reinterpreted(rows, torch.int32) & 0xFFFF_FFFF
        if self._bits == 32:
            return words
        # The word that an index begins in, and the one that it may end in.
        low, high = words[:, self._word], words[:, (self._word + 1).clamp(max=words.shape[1] - 1)]
        return (low | high << 32) >> self._shift & (1 << self._bits) - 1

    def _values(self, output):
        """The codebook in output values, (codewords, height * width * channels), on the device."""
        archive, dtype = self._archive, output["dtype"]
        codebook = torch.from_dlpack(archive.codebook).to(self.device)
        codebook = codebook.view(len(codebook), -1)
        if dtype == torch.uint8:
            return codebook
        channels = archive.dimensions[0]
        table = _table(output, channels, self.device)
        values = torch.empty(codebook.shape, dtype=dtype, device=self.device)
        channel = torch.arange(codebook.shape[1], device=self.device) % channels
        for target, source in zip(values.split(_CHUNK), codebook.split(_CHUNK)):
            target.copy_(table[source.long() * channels + channel])
        return values


def _masked(images, batch):
    """Images made of a `kuat.Batch`, those that are masked in it filled with zeros."""
    if batch.masked:
        images[batch.masked] = 0
    return images


def _table(output, channels, device):
    """The output value of each byte, channel by channel: (256 * channels,) on the device.

    The values are those that kuat defines: computed in double precision and rounded to single, then to half.
    """
    table = np.arange(256)[:, None] / np.full(channels, 255.0)
    if output["mean"] is not None:
        mean, std = (np.float64(np.float32(output[name])) for name in ("mean", "std"))
        table = (table - mean) / std
    return torch.from_dlpack(table.astype(np.float32)).to(device, output["dtype"]).reshape(-1)


def _reinterpreted(rows, dtype):
    """Rows of bytes as rows of numbers of another dtype, widened to int64."""
    # Flat, as the rows of an empty batch have no strides to view them by.
    numbers = rows.flatten().view(dtype)
    return numbers.long().view(len(rows), rows.shape[1] // numbers.element_size())
