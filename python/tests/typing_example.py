"""The public interface as a type checker sees it: `mypy --strict` must pass, where nothing but comments is ignored."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
import numpy.typing as npt

import kuat

if TYPE_CHECKING:
    from typing_extensions import assert_type
else:

    def assert_type(value: Any, kind: Any) -> Any:
        return value


def report(stage: str, done: int, total: int) -> None:
    print(stage, done, total)


def encode(images: npt.NDArray[np.uint8], path: Path) -> kuat.KuatArchive:
    summary = kuat.encode(list(images), path, size=(16, 12), patch=4, codebook=64, fit="stretch", progress=report)
    assert_type(summary["mean_psnr_db"], float)
    assert_type([skipped["reason"] for skipped in summary["skipped"]], list[str])
    archive = kuat.KuatArchive(path)
    # Codewords of an array, and of an archive.
    kuat.encode(iter(images), path, size=(16, 12), codebook=archive.codebook, on_error="skip", progress=False)
    with kuat.ArchiveWriter(str(path), size=(16, 12), codebook=archive, classes=["cat"], progress=False) as writer:
        for image in images:
            writer.add(image, 0, "a cat")
        writer.add(images[0].astype(np.float64) / 255, np.int64(0), "floats")
    assert_type(len(writer), int)
    if writer.summary is not None:
        assert_type(writer.summary["samples"], int)
    return kuat.KuatArchive(str(path))


def describe(archive: kuat.KuatArchive) -> None:
    assert_type(archive.len(), int)
    assert_type(len(archive), int)
    assert_type(archive.path, Path)
    assert_type(archive.codebook_size, int)
    assert_type(archive.patch_shape, tuple[int, int])
    assert_type(archive.dimensions, tuple[int, int, int])
    assert_type(archive.grid_size * archive.index_bits, int)
    assert_type(archive.grid_shape, tuple[int, int])
    assert_type(archive.classes, Optional[list[str]])
    assert_type(archive.info()["mean_psnr_db"], Optional[float])
    assert_type(archive.info()["tensors"]["codebook"]["shape"], list[int])
    assert_type(archive.verify(progress=report)["ok"], bool)
    assert_type([bad["sample"] for bad in archive.verify()["bad_samples"]], list[int])
    assert_type([device["name"] for device in kuat.devices()], list[str])
    print(archive.device_name(), archive.device_name("cpu"), archive.patch_size + 1, kuat.__version__)


def read(archive: kuat.KuatArchive) -> None:
    assert_type(archive.decode(0), npt.NDArray[np.uint8])
    assert_type(archive.decode(np.int64(0)), npt.NDArray[np.uint8])
    assert_type(archive.label(-1), Optional[int])
    assert_type(archive.caption(0), Optional[str])
    assert_type(archive.captions([0]), Optional[list[str]])
    assert_type(archive.labels(range(2)), npt.NDArray[np.int64])
    assert_type(archive.all_labels(), npt.NDArray[np.int64])
    assert_type(archive.codebook, npt.NDArray[np.uint8])
    assert_type(archive.codebook_numpy(), npt.NDArray[np.float32])
    assert_type(archive.get_packed_batch(slice(2)), npt.NDArray[np.uint8])
    indices = archive.get_indices_batch((0, 1))
    assert_type(indices, npt.NDArray[np.uint32])
    assert_type(archive.decode_indices(indices), npt.NDArray[np.uint8])
    assert_type(archive.decode_indices(indices, dtype="float32", layout="NCHW"), npt.NDArray[np.float32])


def decode(archive: kuat.KuatArchive) -> None:
    assert_type(archive.decode_batch([0, 1]), npt.NDArray[np.uint8])
    assert_type(archive.decode_batch(np.arange(2), dtype=np.uint8, device="cpu"), npt.NDArray[np.uint8])
    assert_type(archive.decode_batch(slice(0, 2), dtype="float16"), npt.NDArray[np.float16])
    mean, std = kuat.IMAGENET_MEAN, kuat.IMAGENET_STD
    floats = archive.decode_batch(range(2), dtype=np.float32, layout="NCHW", mean=mean, std=std)
    assert_type(floats, npt.NDArray[np.float32])
    assert_type(archive.decode_batch([0], dtype=np.dtype(np.float32), mean=0.5, std=0.5), npt.NDArray[np.float32])
    out = np.empty((2, 12, 16, 3), np.uint8)
    assert archive.decode_batch([0, 1], out) is out
    batch = archive.decode_batch((i for i in range(2)), dtype="float32", to="dlpack")
    assert_type(batch, kuat.Batch)
    assert_type(batch.shape, tuple[int, int, int, int])
    assert_type(len(batch) + batch.nbytes, int)
    print(np.from_dlpack(batch).sum(), batch.numpy().sum(), np.asarray(batch).sum(), batch.device, batch.dtype)


def wrong(archive: kuat.KuatArchive) -> None:
    """Calls that a type checker must refuse."""
    archive.decode_batch([0], dtype="float64")  # type: ignore[call-overload]
    archive.decode_batch([0], layout="HWC")  # type: ignore[call-overload]
    archive.decode_batch([0], mean=0.5, std=0.5)  # type: ignore[call-overload]
    archive.decode_batch([0.5])  # type: ignore[list-item]
    archive.decode("first")  # type: ignore[arg-type]
    kuat.encode("photos", "photos.qvq", fit="fill")  # type: ignore[arg-type]


def train(archive: kuat.KuatArchive) -> dict[str, float]:
    means = {}
    for batch in kuat.KuatDataset(archive, batch_size=2, shuffle=True, seed=1, drop_last=True):
        assert_type(batch["images"], npt.NDArray[np.uint8])
        assert_type(batch["labels"], npt.NDArray[np.int64])
        assert_type(batch["captions"], Optional[list[str]])
    dataset: kuat.KuatDataset = kuat.KuatDataset(archive.path, layout="NCHW", dtype="float32", mean=0.5, std=0.5)
    for epoch in range(2):
        means[f"epoch {epoch}"] = float(np.mean([batch["images"].mean() for batch in dataset.epoch(epoch)]))
    return means


def main(path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 12, 16, 3), dtype=np.uint8)
    kuat.set_num_threads(1)
    try:
        with encode(images, path) as archive:
            describe(archive)
            read(archive)
            decode(archive)
            print(train(archive))
    except kuat.Error as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
