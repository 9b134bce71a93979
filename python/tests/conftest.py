"""Archives for tests."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers import GEOMETRIES, make
from oracle import decoded, parsed

import kuat


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    return {name: make(folder / f"{name}.qvq", geometry) for name, geometry in GEOMETRIES.items()}


@pytest.fixture(scope="module", params=GEOMETRIES)
def case(request, paths):
    path = paths[request.param]
    return SimpleNamespace(
        name=request.param, path=path, archive=kuat.KuatArchive(path), images=decoded(path), tensors=parsed(path)[1]
    )


@pytest.fixture
def path(paths):
    return paths["rgb"]


@pytest.fixture
def archive(path):
    return kuat.KuatArchive(path)


@pytest.fixture
def images(path):
    return decoded(path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """An archive without labels, captions and class names."""
    path = tmp_path_factory.mktemp("plain") / "plain.qvq"
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), dtype=np.uint8)
    kuat.encode(images, path, size=(12, 8), codebook=16, progress=False)
    return kuat.KuatArchive(path)
