# The native module. What users see of it is in `kuat`; the rest serves kuat's own Python code.

import pathlib
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Final, Literal, Protocol, SupportsIndex, TypedDict, TypeVar, final, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray
from typing_extensions import CapsuleType, Self, TypeAlias

__all__ = [
    "KuatArchive",
    "Batch",
    "Batches",
    "run_command",
    "devices",
    "encode_path",
    "encode_source",
    "end_process",
    "DamageWarning",
    "Error",
    "live_memory",
    "Options",
    "set_num_threads",
    "suggest_num_threads",
    "ArchiveWriter",
    "UNOPTIMIZED",
    "__version__",
]

# What arguments may be.

class _TorchDtype(Protocol):
    """`torch.uint8`, `torch.float16`, `torch.float32`."""

    @property
    def is_floating_point(self) -> bool: ...
    @property
    def is_complex(self) -> bool: ...

class _TorchTensor(Protocol):
    """A torch tensor in host memory."""

    def numpy(self) -> NDArray[Any]: ...
    def data_ptr(self) -> int: ...

_Path: TypeAlias = str | PathLike[str]
# An array of floats or booleans, which type checkers let through, is a TypeError.
_Ids: TypeAlias = slice | Iterable[SupportsIndex] | NDArray[np.integer[Any]]
# numpy's float types are one generic class, of which mypy thinks that they overlap.
_U8: TypeAlias = Literal["uint8", "u8"] | type[np.uint8] | np.dtype[np.uint8]
_F16: TypeAlias = Literal["float16", "f16", "half"] | type[np.float16] | np.dtype[np.float16]
_F32: TypeAlias = Literal["float32", "f32"] | type[np.float32] | np.dtype[np.float32]
_Dtype: TypeAlias = _U8 | _F16 | _F32 | _TorchDtype
_Layout: TypeAlias = Literal["NHWC", "NCHW"]
_PerChannel: TypeAlias = float | Sequence[float] | NDArray[np.floating[Any]] | _TorchTensor
# The name of an adapter, or a part of it, is as good as the three words.
_Device: TypeAlias = Literal["auto", "cpu", "gpu"] | str | int
_Fit: TypeAlias = Literal["crop", "stretch", "pad"]
_Filter: TypeAlias = Literal["bilinear", "bicubic", "lanczos", "box", "hamming"]
_Check: TypeAlias = Literal["open", "read", "never"]
_Damaged: TypeAlias = Literal["raise", "skip", "mask"]
_Access: TypeAlias = Literal["auto", "map", "read"]
_OnError: TypeAlias = Literal["fail", "skip"]
_Progress: TypeAlias = Callable[[str, int, int], object]
_Out = TypeVar("_Out", bound=NDArray[Any] | _TorchTensor)

# What dicts hold.

class _Tensor(TypedDict):
    dtype: str
    shape: list[int]

class _Info(TypedDict):
    archive: str
    codec: Literal["vq", "layers"]
    samples: int
    image_width: int
    image_height: int
    channels: int
    patch_width: int
    patch_height: int
    grid_width: int
    grid_height: int
    patch: list[int]
    codewords: int
    codebook_bytes: int
    device: str
    index_bits: int
    bytes_per_image: float
    file_len: int
    mean_psnr_db: float | None
    max_error: int | None
    classes: list[str] | None
    encoder: str | None
    labels: bool
    captions: bool
    checksums: bool
    psnr: bool
    ledger: _Ledger | None
    metadata: dict[str, str]
    tensors: dict[str, _Tensor]

class _SamplePsnr(TypedDict):
    sample: int
    psnr_db: float

class _Bin(TypedDict):
    from_db: float
    to_db: float
    samples: int

class _Ledger(TypedDict):
    mean_db: float
    first_percentile_db: float
    worst: list[_SamplePsnr]
    histogram: list[_Bin]

class _BadSample(TypedDict):
    sample: int
    problem: str

class _Verification(TypedDict):
    archive: str
    ok: bool
    samples: int
    bad_samples: list[_BadSample]
    problems: list[str]
    unchecked: list[str]

class _Adapter(TypedDict):
    index: int
    name: str
    kind: str
    api: str
    driver: str
    driver_info: str
    max_buffer_size: int
    max_storage_buffer_binding_size: int
    timestamps: bool

class _Skipped(TypedDict):
    index: int
    name: str
    reason: str

class _Summary(TypedDict):
    archive: str
    samples: int
    skipped: list[_Skipped]
    classes: list[str] | None
    codec: Literal["vq", "layers"]
    patch: list[int]
    codewords: int
    codebook_bytes: int
    max_error: int | None
    uniform_cells: int | None
    device: str
    index_bits: int
    bytes_per_image: int
    file_len: int
    mean_psnr_db: float
    min_psnr_db: float
    pooled_psnr_db: float
    resumed: int
    sampling_seconds: float
    training_seconds: float
    encoding_seconds: float
    images_per_second: float

__version__: Final[str]
UNOPTIMIZED: Final[bool]

class DamageWarning(UserWarning): ...
class Error(Exception): ...

@final
class KuatArchive:
    def __new__(
        cls, path: _Path, check: _Check = "read", damaged: _Damaged = "raise", access: _Access = "auto"
    ) -> Self: ...
    @property
    def path(self) -> pathlib.Path: ...
    def len(self) -> int: ...
    def __len__(self) -> int: ...
    @property
    def codec(self) -> Literal["vq", "layers"]: ...
    @property
    def codebook_size(self) -> int: ...
    # An int where patches are square; Any stands for the tuple that it otherwise is, so that few need to tell.
    @property
    def patch_size(self) -> int | Any: ...
    @property
    def patch_shape(self) -> tuple[int, int]: ...
    @property
    def dimensions(self) -> tuple[int, int, int]: ...
    @property
    def grid_size(self) -> int: ...
    @property
    def grid_shape(self) -> tuple[int, int]: ...
    @property
    def index_bits(self) -> int: ...
    @property
    def classes(self) -> list[str] | None: ...
    @property
    def psnr(self) -> NDArray[np.float32] | None: ...
    @property
    def codebook(self) -> NDArray[np.uint8]: ...
    def info(self) -> _Info: ...
    def verify(self, *, progress: _Progress | None = None) -> _Verification: ...
    def decode(self, index: SupportsIndex) -> NDArray[np.uint8]: ...
    @overload
    def decode_batch(
        self,
        /,
        ids: _Ids,
        out: None = None,
        *,
        dtype: _U8 | None = "uint8",
        layout: _Layout = "NHWC",
        mean: None = None,
        std: None = None,
        device: _Device = "auto",
        to: Literal["numpy"] = "numpy",
    ) -> NDArray[np.uint8]: ...
    @overload
    def decode_batch(  # type: ignore[overload-overlap]
        self,
        /,
        ids: _Ids,
        out: None = None,
        *,
        dtype: _F32,
        layout: _Layout = "NHWC",
        mean: _PerChannel | None = None,
        std: _PerChannel | None = None,
        device: _Device = "auto",
        to: Literal["numpy"] = "numpy",
    ) -> NDArray[np.float32]: ...
    @overload
    def decode_batch(
        self,
        /,
        ids: _Ids,
        out: None = None,
        *,
        dtype: _F16,
        layout: _Layout = "NHWC",
        mean: _PerChannel | None = None,
        std: _PerChannel | None = None,
        device: _Device = "auto",
        to: Literal["numpy"] = "numpy",
    ) -> NDArray[np.float16]: ...
    @overload
    def decode_batch(
        self,
        /,
        ids: _Ids,
        out: None = None,
        *,
        dtype: _Dtype | None = "uint8",
        layout: _Layout = "NHWC",
        mean: _PerChannel | None = None,
        std: _PerChannel | None = None,
        device: _Device = "auto",
        to: Literal["dlpack"],
    ) -> Batch: ...
    @overload
    def decode_batch(
        self,
        /,
        ids: _Ids,
        out: _Out,
        *,
        dtype: _Dtype | None = "uint8",
        layout: _Layout = "NHWC",
        mean: _PerChannel | None = None,
        std: _PerChannel | None = None,
        device: _Device = "auto",
        to: Literal["numpy"] = "numpy",
    ) -> _Out: ...
    @overload
    def decode_batch(
        self,
        /,
        ids: _Ids,
        out: None = None,
        *,
        dtype: _Dtype,
        layout: _Layout = "NHWC",
        mean: _PerChannel | None = None,
        std: _PerChannel | None = None,
        device: _Device = "auto",
        to: Literal["numpy"] = "numpy",
    ) -> NDArray[Any]: ...
    @overload
    def decode_indices(
        self,
        /,
        indices: NDArray[np.uint32],
        out: None = None,
        *,
        dtype: _U8 | None = "uint8",
        layout: _Layout = "NHWC",
        mean: None = None,
        std: None = None,
        device: _Device = "auto",
        to: Literal["numpy"] = "numpy",
    ) -> NDArray[np.uint8]: ...
    @overload
    def decode_indices(  # type: ignore[overload-overlap]
        self,
        /,
        indices: NDArray[np.uint32],
        out: None = None,
        *,
        dtype: _F32,
        layout: _Layout = "NHWC",
        mean: _PerChannel | None = None,
        std: _PerChannel | None = None,
        device: _Device = "auto",
        to: Literal["numpy"] = "numpy",
    ) -> NDArray[np.float32]: ...
    @overload
    def decode_indices(
        self,
        /,
        indices: NDArray[np.uint32],
        out: None = None,
        *,
        dtype: _F16,
        layout: _Layout = "NHWC",
        mean: _PerChannel | None = None,
        std: _PerChannel | None = None,
        device: _Device = "auto",
        to: Literal["numpy"] = "numpy",
    ) -> NDArray[np.float16]: ...
    @overload
    def decode_indices(
        self,
        /,
        indices: NDArray[np.uint32],
        out: None = None,
        *,
        dtype: _Dtype | None = "uint8",
        layout: _Layout = "NHWC",
        mean: _PerChannel | None = None,
        std: _PerChannel | None = None,
        device: _Device = "auto",
        to: Literal["dlpack"],
    ) -> Batch: ...
    @overload
    def decode_indices(
        self,
        /,
        indices: NDArray[np.uint32],
        out: _Out,
        *,
        dtype: _Dtype | None = "uint8",
        layout: _Layout = "NHWC",
        mean: _PerChannel | None = None,
        std: _PerChannel | None = None,
        device: _Device = "auto",
        to: Literal["numpy"] = "numpy",
    ) -> _Out: ...
    @overload
    def decode_indices(
        self,
        /,
        indices: NDArray[np.uint32],
        out: None = None,
        *,
        dtype: _Dtype,
        layout: _Layout = "NHWC",
        mean: _PerChannel | None = None,
        std: _PerChannel | None = None,
        device: _Device = "auto",
        to: Literal["numpy"] = "numpy",
    ) -> NDArray[Any]: ...
    def device_name(self, /, device: _Device = "auto") -> str: ...
    def label(self, index: SupportsIndex) -> int | None: ...
    def labels(self, ids: _Ids) -> NDArray[np.int64]: ...
    def all_labels(self) -> NDArray[np.int64]: ...
    def caption(self, index: SupportsIndex) -> str | None: ...
    def captions(self, ids: _Ids) -> list[str] | None: ...
    def codebook_numpy(self) -> NDArray[np.float32]: ...
    def get_indices_batch(self, ids: _Ids) -> NDArray[np.uint32]: ...
    def get_packed_batch(self, ids: _Ids) -> NDArray[np.uint8]: ...
    def intact(self, ids: _Ids) -> NDArray[np.int64]: ...
    @property
    def damaged(self) -> dict[int, str]: ...
    @property
    def _skips(self) -> bool: ...
    @property
    def _raises(self) -> bool: ...
    def _all_packed(self, ids: _Ids) -> NDArray[np.uint8]: ...
    def _batches(
        self,
        /,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        drop_last: bool = False,
        shard: tuple[int, int] = (0, 1),
        ahead: int = 2,
        packed: bool = False,
        resident: bool = False,
        dtype: _Dtype | None = "uint8",
        layout: _Layout = "NHWC",
        mean: _PerChannel | None = None,
        std: _PerChannel | None = None,
        device: _Device = "auto",
    ) -> Batches: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
    def __reduce__(self) -> tuple[type[KuatArchive], tuple[pathlib.Path, str, str, str]]: ...

@final
class Batch:
    @property
    def device(self) -> str: ...
    @property
    def masked(self) -> list[int]: ...
    @property
    def shape(self) -> tuple[int, int, int, int]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def nbytes(self) -> int: ...
    def __len__(self) -> int: ...
    def numpy(self) -> NDArray[Any]: ...
    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __dlpack__(
        self,
        *,
        stream: None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> CapsuleType: ...

@final
class Batches:
    def __iter__(self) -> Self: ...
    def __len__(self) -> int: ...
    def __next__(self) -> tuple[NDArray[np.int64], NDArray[np.int64], Batch]: ...

@final
class Options:
    def __new__(
        cls,
        *,
        size: tuple[int, int],
        layers: bool,
        books: KuatArchive | Literal["builtin"] | None,
        patch: tuple[int, int],
        codebook: int | NDArray[np.uint8],
        any_patch: bool,
        max_error: int | None,
        goal: tuple[str, float] | None,
        channels: int,
        fit: str,
        filter: str,
        resize_short: int | None,
        max_pixels: int,
        seed: int,
        on_error: str,
        device: _Device,
        resume: bool,
    ) -> Self: ...
    @property
    def channels(self) -> int: ...
    @property
    def on_error(self) -> _OnError: ...
    @property
    def resume(self) -> bool: ...

@final
class ArchiveWriter:
    def __new__(cls, path: _Path, options: Options) -> Self: ...
    def add(self, index: int, picture: str | NDArray[np.uint8], label: int | None, caption: str | None) -> None: ...
    def skip(self, index: int, reason: str) -> None: ...
    def __len__(self) -> int: ...
    def close(self, classes: Sequence[str] | None, progress: _Progress | None) -> _Summary: ...
    def discard(self) -> None: ...

def devices() -> list[_Adapter]: ...
def set_num_threads(count: int) -> None: ...
def suggest_num_threads(count: int) -> None: ...
def end_process() -> None: ...
def encode_path(
    source: _Path,
    path: _Path,
    options: Options,
    classes: Sequence[str] | None,
    progress: _Progress | None,
) -> _Summary: ...
def encode_source(
    read: Callable[[int], tuple[str | NDArray[np.uint8], int | None, str | None]],
    len: int,
    labels: bool,
    captions: bool,
    classes: Sequence[str] | None,
    path: _Path,
    options: Options,
    progress: _Progress | None,
) -> _Summary: ...
def run_command(arguments: Sequence[str]) -> int: ...
def live_memory() -> int: ...
