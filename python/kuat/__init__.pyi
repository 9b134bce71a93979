from typing import Final

from ._dataset import KuatDataset as KuatDataset
from ._encode import ArchiveWriter as ArchiveWriter, encode as encode
from ._kuat import (
    Batch as Batch,
    Error as Error,
    KuatArchive as KuatArchive,
    __version__ as __version__,
    devices as devices,
    set_num_threads as set_num_threads,
)
from ._torch import GPUDataset as GPUDataset, GPUDecoder as GPUDecoder

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ArchiveWriter",
    "Batch",
    "Error",
    "GPUDataset",
    "GPUDecoder",
    "KuatArchive",
    "KuatDataset",
    "__version__",
    "devices",
    "encode",
    "set_num_threads",
]

IMAGENET_MEAN: Final[tuple[float, float, float]]
IMAGENET_STD: Final[tuple[float, float, float]]
