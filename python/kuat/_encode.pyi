from collections.abc import Iterable
from types import TracebackType
from typing import Any, Literal, Protocol, SupportsIndex

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self, TypeAlias

from . import _kuat

class _Array(Protocol):
    """numpy's and other arrays, torch's tensors."""

    def __array__(self) -> NDArray[Any]: ...

class _ArrayInterface(Protocol):
    """PIL's images."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...

class _Indexed(Protocol):
    """A data set of items."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...

_Image: TypeAlias = _kuat._Path | _Array | _ArrayInterface
_Source: TypeAlias = _kuat._Path | _Indexed | Iterable[Any]
_Size: TypeAlias = SupportsIndex | tuple[SupportsIndex, SupportsIndex] | list[int]
_Codebook: TypeAlias = SupportsIndex | NDArray[np.uint8] | _kuat.KuatArchive
_Progress: TypeAlias = bool | _kuat._Progress | None

def encode(
    source: _Source,
    path: _kuat._Path,
    *,
    size: _Size | None = None,
    codec: Literal["vq", "layers"] | None = None,
    quality: SupportsIndex | None = None,
    patch: _Size | None = None,
    codebook: _Codebook | None = None,
    max_error: SupportsIndex | None = None,
    psnr: float | None = None,
    target_bytes: SupportsIndex | None = None,
    bytes_per_image: SupportsIndex | None = None,
    channels: SupportsIndex | None = None,
    fit: _kuat._Fit = "crop",
    filter: _kuat._Filter = "bilinear",
    resize_short: SupportsIndex | None = None,
    max_pixels: SupportsIndex = 178_956_970,
    seed: SupportsIndex = 0,
    on_error: _kuat._OnError = "fail",
    device: _kuat._Device = "cpu",
    resume: bool = False,
    classes: Iterable[str] | None = None,
    progress: _Progress = True,
) -> _kuat._Summary: ...

class ArchiveWriter:
    def __init__(
        self,
        path: _kuat._Path,
        *,
        size: _Size | None = None,
        codec: Literal["vq", "layers"] | None = None,
        quality: SupportsIndex | None = None,
        patch: _Size | None = None,
        codebook: _Codebook | None = None,
        max_error: SupportsIndex | None = None,
        psnr: float | None = None,
        target_bytes: SupportsIndex | None = None,
        bytes_per_image: SupportsIndex | None = None,
        channels: SupportsIndex | None = None,
        fit: _kuat._Fit = "crop",
        filter: _kuat._Filter = "bilinear",
        resize_short: SupportsIndex | None = None,
        max_pixels: SupportsIndex = 178_956_970,
        seed: SupportsIndex = 0,
        on_error: _kuat._OnError = "fail",
        device: _kuat._Device = "cpu",
        classes: Iterable[str] | None = None,
        progress: _Progress = True,
    ) -> None: ...
    def add(self, image: _Image, label: SupportsIndex | None = None, caption: str | None = None) -> None: ...
    def __len__(self) -> int: ...
    def close(self) -> _kuat._Summary: ...
    def discard(self) -> None: ...
    @property
    def summary(self) -> _kuat._Summary | None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
