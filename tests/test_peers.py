"""The check of the benchmarks' peers: it passes what is right, and nothing else."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benches"))

from peers import data as photographs  # noqa: E402
from peers.check import Wrong, check  # noqa: E402
from peers.data import F32, MEAN, STD, U8, Data  # noqa: E402
from peers.peer import Peer  # noqa: E402

COUNT = 12


class Fake(Peer):
    """Yields what a test says."""

    name = "fake"
    seen = None

    def reference(self):
        return self.data.pixels if self.seen is None else self.seen


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crops")
    random = np.random.default_rng(1)
    # Smooth pictures, as photographs are.
    corners = random.integers(0, 256, (COUNT, 8, 8, 3)).astype(np.uint8)
    np.save(folder / "pixels.npy", corners.repeat(28, 1).repeat(28, 2))
    np.save(folder / "labels.npy", np.arange(COUNT) % 3)
    return Data(folder, folder, workers=2)


def batches(data, order, images=None):
    images = data.pixels if images is None else images
    for start in range(0, len(order), 5):
        ids = order[start : start + 5]
        yield images[ids], data.labels[ids]


def order():
    return np.random.default_rng(2).permutation(COUNT)


def floats(images):
    return ((images / 255 - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2).copy()


def test_the_right_images_pass(data):
    assert check(Fake(data), U8, batches(data, order())) == ("equal", None)
    twice = np.concatenate([order(), order()[::-1]])
    assert check(Fake(data), U8, batches(data, twice)) == ("equal", None)
    normalised = ((floats(images), labels) for images, labels in batches(data, order()))
    assert check(Fake(data), F32, normalised) == ("equal", None)


def test_one_wrong_value_is_found(data):
    images = data.pixels.copy()
    images[7, 100, 100, 1] ^= 1
    with pytest.raises(Wrong, match="image 7 differs"):
        check(Fake(data), U8, batches(data, order(), images))


def test_wrong_floats_are_found(data):
    shifted = ((floats(images) + 0.001, labels) for images, labels in batches(data, order()))
    with pytest.raises(Wrong, match="floats are not"):
        check(Fake(data), F32, shifted)
    interleaved = ((floats(images).transpose(0, 2, 3, 1).copy(), labels) for images, labels in batches(data, order()))
    with pytest.raises(Wrong, match="expected float32"):
        check(Fake(data), F32, interleaved)
    strided = ((floats(images).transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2), labels) for images, labels in
               batches(data, order()))  # fmt: skip
    with pytest.raises(Wrong, match="contiguous"):
        check(Fake(data), F32, strided)


def test_images_must_all_come_with_their_labels_in_another_order(data):
    with pytest.raises(Wrong, match="equally often"):
        check(Fake(data), U8, batches(data, order()[:-1]))
    with pytest.raises(Wrong, match="equally often"):
        check(Fake(data), U8, batches(data, np.append(order()[:-1], order()[0])))
    mislabelled = ((images, labels[::-1]) for images, labels in batches(data, order()))
    with pytest.raises(Wrong, match="label"):
        check(Fake(data), U8, mislabelled)
    with pytest.raises(Wrong, match="not random"):
        check(Fake(data), U8, batches(data, np.arange(COUNT)))


def test_lossy_images_have_a_quality(data):
    coarse = data.pixels // 4 * 4
    peer = Fake(data)
    peer.code, peer.seen = "JPEG", coarse
    # A decoder that rounds in its own way.
    checked, db = check(peer, U8, batches(data, order(), np.minimum(coarse, 254) + 1))
    # Errors of -1, 0, 1 and 2.
    assert checked == f"PSNR {db:.1f} dB" and abs(db - 10 * np.log10(255**2 / 1.5)) < 0.5
    with pytest.raises(Wrong, match="differs"):
        check(peer, U8, batches(data, order(), data.pixels // 16 * 16))


def test_photographs_are_cropped_as_torchvision_does(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for name, size in {"a/1.png": (300, 450), "a/2.png": (640, 224), "b/3.png": (200, 224)}.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        # Red grows along the width, green along the height.
        red, green = (np.linspace(0, 255, side).astype(np.uint8) for side in size)
        pixels = np.zeros((*size[::-1], 3), np.uint8)
        pixels[..., 0], pixels[..., 1] = red, green[:, None]
        image.fromarray(pixels).save(tmp_path / "in" / name)
    crops = Data(tmp_path / "in", photographs.prepare(tmp_path / "in", tmp_path), 2)
    assert crops.pixels.shape == (3, 224, 224, 3) and crops.labels.tolist() == [0, 0, 1] and len(crops.jpegs) == 3
    # The middle of the long side: of 450 pixels 300 are left, 75 cut from either end.
    top, bottom = crops.pixels[0, [0, -1], 112, 1]
    assert abs(top - 255 * 75 / 450) < 2 and abs(bottom - 255 * 375 / 450) < 2
    left, right = crops.pixels[0, 112, [0, -1], 0].astype(int)
    assert left < 2 and right > 253
    # Not resized where the short side has the size already.
    assert crops.pixels[1, 112, :, 0].tolist() == np.linspace(0, 255, 640).astype(np.uint8)[208:432].tolist()
