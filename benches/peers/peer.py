"""What a peer is."""

import importlib.metadata
import shutil
from functools import cached_property

from .check import Expected
from .data import MEAN, STD


class Peer:
    """A way to make batches of the photographs.

    Subclasses give `name`, the row it fills; `packages`, those whose versions count; `store`, the file or folder of its
    own that it keeps them in, which `write` makes; and `open`.
    """

    name = None
    packages = ()
    store = None
    # The lossy code between the photographs and what is yielded: None, "JPEG" or "kuat".
    code = None
    # Whether it resizes and crops the photographs itself.
    crops = False
    # Batches that are ready before an epoch begins; they are taken before the clock starts, and count for nobody.
    ready = 0
    # More about the row, for those who read the results.
    facts = {}

    def __init__(self, data):
        self.data = data

    @property
    def path(self):
        return self.data.folder / self.store

    def prepare(self):
        """Makes the peer's store, once."""
        if self.store and not self.path.exists():
            part = self.path.with_name(f"{self.store}.part")
            if part.is_dir():
                shutil.rmtree(part)
            part.unlink(missing_ok=True)
            self.write(part)
            part.rename(self.path)

    def write(self, path):
        """Writes the photographs to `path` in the peer's own format."""
        raise NotImplementedError

    def files(self):
        """The files that hold the images."""
        return [path for path in (self.path, *self.path.rglob("*")) if path.is_file()]

    def bytes_per_image(self):
        return round(sum(path.stat().st_size for path in self.files()) / len(self.data))

    def batches(self, work):
        """Other sizes of batches than the usual ones that this peer shall show."""
        return ()

    def open(self, work, batch):
        """An iterable, each pass of which is an epoch in a new random order: (images, labels) of a batch each. Images
        are (B, 224, 224, 3) uint8 for U8, and (B, 3, 224, 224) float32 normalised, contiguous, in a tensor for F32."""
        raise NotImplementedError

    def reference(self):
        """The images that it should yield: (N, 224, 224, 3) uint8."""
        return self.data.pixels

    @cached_property
    def expected(self):
        return Expected(self.reference(), self.data.pixels)

    def version(self):
        return ", ".join(f"{name} {version(name)}" for name in self.packages)


class Epochs:
    """Calls `epoch` for the batches of each pass."""

    def __init__(self, epoch):
        self._epoch = epoch

    def __iter__(self):
        return iter(self._epoch())


def version(package):
    """Of a package in this environment, without what builders add."""
    try:
        return importlib.metadata.version(package).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return __import__(package).__version__


def normalized(images):
    """A (B, H, W, 3) uint8 tensor as (B, 3, H, W) float32, normalised: of the usual ways to write it the fastest, whose
    first step brings planes and floats at once, and whose others work in place."""
    import torch

    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    images = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return images.div_(255).sub_(mean).div_(std)


def normalize_into(floats, images):
    """The same into memory that is there already, which spares the page faults of fresh memory."""
    import torch

    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    floats.copy_(images.permute(0, 3, 1, 2)).mul_(1 / (255 * std)).sub_(mean / std)
