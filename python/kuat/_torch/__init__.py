"""Archives as torch tensors."""

try:
    import torch as _  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError(
        "GPUDecoder and GPUDataset return torch tensors, and torch is not installed: pip install torch. "
        "KuatArchive.decode_batch and KuatDataset work without it."
    ) from error

from ._dataset import GPUDataset
from ._decoder import GPUDecoder

__all__ = ["GPUDataset", "GPUDecoder"]
