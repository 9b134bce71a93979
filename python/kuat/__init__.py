"""Image data sets as vector-quantised archives, decoded by a gather on any CPU or GPU."""

import os

from ._dataset import KuatDataset
from ._encode import ArchiveWriter, encode
from ._kuat import UNOPTIMIZED, Batch, DamageWarning, Error, KuatArchive, __version__, devices, set_num_threads

# GPUDataset and GPUDecoder are not among them, so that `from kuat import *` does not need torch.
__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ArchiveWriter",
    "Batch",
    "DamageWarning",
    "Error",
    "KuatArchive",
    "KuatDataset",
    "__version__",
    "devices",
    "encode",
    "set_num_threads",
]

# Of RGB values from 0 to 1: the usual constants of networks trained on ImageNet, torchvision's.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Keeps a layer that Mesa installs for choosing among GPUs, which kuat does itself, from writing to standard error on
# machines without a display.
if "MESA_VK_DEVICE_SELECT" not in os.environ:
    os.environ.setdefault("NODEVICE_SELECT", "1")

if UNOPTIMIZED:
    import warnings

    warnings.warn("kuat was built without optimisation and is many times slower; build it with --release", stacklevel=2)


def __getattr__(name):
    # torch takes seconds to import, and not everyone has it.
    if name in ("GPUDataset", "GPUDecoder"):
        from . import _torch

        return getattr(_torch, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*__all__, "GPUDataset", "GPUDecoder"])
