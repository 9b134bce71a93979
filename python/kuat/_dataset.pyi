from collections.abc import Iterator
from typing import Any, Generic, TypedDict, overload

import numpy as np
from numpy.typing import NDArray
from typing_extensions import NotRequired, TypeVar

from . import _kuat

_T = TypeVar("_T", bound=np.generic, default=Any)

class _Batch(TypedDict, Generic[_T]):
    images: NDArray[_T]
    labels: NDArray[np.int64]
    captions: list[str] | None
    samples: NotRequired[NDArray[np.int64]]
    intact: NotRequired[NDArray[np.bool_]]

class KuatDataset(Generic[_T]):
    archive: _kuat.KuatArchive
    batch_size: int
    @overload
    def __init__(
        self: KuatDataset[np.uint8],
        path: _kuat._Path | _kuat.KuatArchive,
        batch_size: int = 64,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        layout: _kuat._Layout = "NHWC",
        *,
        dtype: _kuat._U8 = "uint8",
        mean: None = None,
        std: None = None,
        device: _kuat._Device = "auto",
        resident: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self: KuatDataset[np.float32],
        path: _kuat._Path | _kuat.KuatArchive,
        batch_size: int = 64,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        layout: _kuat._Layout = "NHWC",
        *,
        dtype: _kuat._F32,
        mean: _kuat._PerChannel | None = None,
        std: _kuat._PerChannel | None = None,
        device: _kuat._Device = "auto",
        resident: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self: KuatDataset[np.float16],
        path: _kuat._Path | _kuat.KuatArchive,
        batch_size: int = 64,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        layout: _kuat._Layout = "NHWC",
        *,
        dtype: _kuat._F16,
        mean: _kuat._PerChannel | None = None,
        std: _kuat._PerChannel | None = None,
        device: _kuat._Device = "auto",
        resident: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self: KuatDataset[Any],
        path: _kuat._Path | _kuat.KuatArchive,
        batch_size: int = 64,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        layout: _kuat._Layout = "NHWC",
        *,
        dtype: _kuat._Dtype,
        mean: _kuat._PerChannel | None = None,
        std: _kuat._PerChannel | None = None,
        device: _kuat._Device = "auto",
        resident: bool = False,
    ) -> None: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[_Batch[_T]]: ...
    def epoch(self, epoch: int = 0) -> Iterator[_Batch[_T]]: ...
