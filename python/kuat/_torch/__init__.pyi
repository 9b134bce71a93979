from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from typing import Any, Literal, Protocol, SupportsIndex, overload

import torch
from torch.utils.data import Dataset
from typing_extensions import TypeAlias

from .. import KuatArchive

_Archive: TypeAlias = KuatArchive | str | PathLike[str]
_Device: TypeAlias = str | torch.device | int
_Layout: TypeAlias = Literal["NCHW", "NHWC"]
_PerChannel: TypeAlias = float | Sequence[float]
_Ids: TypeAlias = slice | Iterable[SupportsIndex] | torch.Tensor
_Batch: TypeAlias = tuple[torch.Tensor, torch.Tensor]

class _Batches(Protocol):
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[_Batch]: ...
    def __next__(self) -> _Batch: ...

class GPUDecoder:
    archive: KuatArchive
    def __init__(
        self,
        archive: _Archive,
        device: _Device = "auto",
        dtype: torch.dtype = ...,
        *,
        layout: _Layout = "NCHW",
        mean: _PerChannel | None = None,
        std: _PerChannel | None = None,
    ) -> None: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def decoded_by(self) -> str: ...
    def decode(self, indices: Any) -> torch.Tensor: ...
    def decode_batch(self, ids: _Ids) -> torch.Tensor: ...

class GPUDataset(Dataset[tuple[torch.Tensor, int]]):
    decoder: GPUDecoder
    def __init__(
        self,
        archive: _Archive,
        device: _Device = "auto",
        normalize: bool | tuple[_PerChannel, _PerChannel] = True,
        layout: _Layout = "NCHW",
        *,
        dtype: torch.dtype = ...,
    ) -> None: ...
    @property
    def archive(self) -> KuatArchive: ...
    @property
    def classes(self) -> list[str] | None: ...
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, ids: SupportsIndex) -> tuple[torch.Tensor, int]: ...
    @overload
    def __getitem__(self, ids: _Ids) -> _Batch: ...
    def __getitems__(self, ids: Sequence[int]) -> Sequence[tuple[torch.Tensor, int]]: ...
    @staticmethod
    def collate(samples: Sequence[tuple[torch.Tensor, int]]) -> _Batch: ...
    def batches(
        self,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        drop_last: bool = False,
        *,
        rank: int = 0,
        world_size: int = 1,
        prefetch: int = 2,
        resident: bool = False,
    ) -> _Batches: ...
