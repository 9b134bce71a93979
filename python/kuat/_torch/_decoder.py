"""Images of an archive as tensors."""

import os

import numpy as np
import torch

from .. import _kuat
from ._backend import backend

_DTYPES = (torch.uint8, torch.float16, torch.float32)


class GPUDecoder:
    """Decodes batches of an archive to torch tensors; to torch's devices the codebook is sent once, here.

    Parameters
    ----------
    archive : KuatArchive, str or PathLike
        The archive, or its path.
    device : str, torch.device or int
        Where the tensors go and what decodes:

        - "auto": torch's accelerator, CUDA (also for AMD's GPUs), XPU or MPS; the CPU if there is none.
        - "cpu", "cuda", "cuda:1", "mps", "xpu" or a `torch.device`: torch's device.
        - "gpu", or the name or number of an adapter in `kuat.devices()`: that GPU decodes, without torch, and the
          tensors are in host memory.
    dtype : torch.dtype
        torch.uint8 gives 0 to 255; torch.float32 and torch.float16 give 0 to 1, or with `mean` and `std`
        `(value - mean) / std`.
    layout : str
        "NCHW" gives (batch, channels, height, width), "NHWC" (batch, height, width, channels).
    mean, std : float or sequence of float, optional
        One for all channels or one for each, of values from 0 to 1.

    Raises FileNotFoundError or another OSError, `kuat.Error` if the archive is invalid or the device is not there, and
    ValueError for arguments that the images do not fit. Decoders are pickled by the archive's path and the arguments.
    """

    def __init__(self, archive, device="auto", dtype=torch.float32, *, layout="NCHW", mean=None, std=None):
        if dtype not in _DTYPES:
            raise ValueError(f"dtype is {dtype!r}, expected torch.uint8, torch.float16 or torch.float32")
        self._arguments = {"device": device, "dtype": dtype, "layout": layout, "mean": mean, "std": std}
        self.archive = archive if isinstance(archive, _kuat.KuatArchive) else _kuat.KuatArchive(os.fspath(archive))
        output = {name: value for name, value in self._arguments.items() if name != "device"}
        self._backend = backend(self.archive, device, output)

    @property
    def device(self):
        """The torch.device of the tensors."""
        return self._backend.device

    @property
    def dtype(self):
        """The torch.dtype of the tensors."""
        return self._arguments["dtype"]

    @property
    def decoded_by(self):
        """What does the gather: "cpu", "torch on cuda:0", or an adapter's name and API."""
        return self._backend.decoded_by

    def decode(self, indices):
        """Images of indices: (batch, channels, height, width), or as `layout` says.

        `indices` is (batch, grid_size) of any integer dtype: a tensor on any device, an array or a nested list, such as
        `KuatArchive.get_indices_batch` returns. An index beyond the codebook decodes as the last codeword, a negative
        one as the first. Raises TypeError for other than integers, ValueError for another shape.
        """
        indices = _integers(indices)
        grid = self.archive.grid_size
        if indices.ndim != 2 or indices.shape[1] != grid:
            raise ValueError(f"indices have the shape {tuple(indices.shape)}, expected (batch, {grid})")
        return self._backend.from_indices(indices.clamp(0, self.archive.codebook_size - 1))

    def decode_batch(self, ids):
        """Images of samples: (batch, channels, height, width), or as `layout` says.

        `ids` is a slice, or a list or one-dimensional array or tensor of integers; negative ones count from the end,
        IndexError beyond it.
        """
        return self._backend.from_samples(ids)

    def __getstate__(self):
        return {"archive": self.archive, **self._arguments}

    def __setstate__(self, state):
        self.__init__(**state)

    def __repr__(self):
        return f"GPUDecoder({self.archive!r}, device={str(self.device)!r}, decoded by {self.decoded_by})"


def _integers(indices):
    """Indices as an int64 tensor; what int64 does not hold becomes its greatest."""
    if not isinstance(indices, torch.Tensor):
        array = np.asarray(indices)
        if array.dtype.kind not in "iu":
            raise TypeError(f"indices hold {array.dtype}, expected integers")
        if array.dtype == np.uint64:
            array = np.minimum(array, np.uint64(2**63 - 1))
        return torch.from_dlpack(array.astype(np.int64))
    if indices.dtype == torch.bool or indices.is_floating_point() or indices.is_complex():
        raise TypeError(f"indices hold {indices.dtype}, expected integers")
    wide = indices.long()
    if str(indices.dtype) == "torch.uint64":
        wide = wide.masked_fill(wide < 0, 2**63 - 1)
    return wide
