from typing import Final

from ._dataset import KuatDataset as KuatDataset
from ._encode import ArchiveWriter as ArchiveWriter
from ._encode import encode as encode
from ._kuat import (
    Batch as Batch,
)
from ._kuat import (
    Error as Error,
)
from ._kuat import (
    KuatArchive as KuatArchive,
)
from ._kuat import (
    __version__ as __version__,
)
from ._kuat import (
    devices as devices,
)
from ._kuat import (
    set_num_threads as set_num_threads,
)
from ._torch import GPUDataset as GPUDataset
from ._torch import GPUDecoder as GPUDecoder

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ArchiveWriter",
    "Batch",
    "Error",
    "KuatArchive",
    "KuatDataset",
    "__version__",
    "devices",
    "encode",
    "set_num_threads",
]

IMAGENET_MEAN: Final[tuple[float, float, float]]
IMAGENET_STD: Final[tuple[float, float, float]]
