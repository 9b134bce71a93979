"""FFCV, with raw pixels and with JPEG in its own file."""

import numpy as np
import torch
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import Squeeze, ToTensor
from ffcv.writer import MIN_PAGE_SIZE, DatasetWriter

from .data import F32, QUALITY
from .peer import Epochs, Peer, normalized


class Ffcv(Peer):
    packages = ("ffcv", "torch")
    mode = None

    @property
    def store(self):
        return f"ffcv-{self.mode}.beton"

    def write(self, path):
        photographs = list(zip(self.data.pixels, self.data.labels.tolist()))
        fields = {"image": RGBImageField(write_mode=self.mode, jpeg_quality=QUALITY), "label": IntField()}
        # Small pages: whole ones count in a file of few images.
        DatasetWriter(str(path), fields, page_size=MIN_PAGE_SIZE, num_workers=1).from_indexed_dataset(photographs)

    def open(self, work, batch):
        torch.set_num_threads(self.data.workers)
        loader = Loader(
            str(self.path),
            batch_size=batch,
            num_workers=self.data.workers,
            order=OrderOption.RANDOM,
            os_cache=True,
            drop_last=False,
            indices=np.tile(np.arange(len(self.data), dtype=np.uint64), self.data.rounds),
            pipelines={
                "image": [SimpleRGBImageDecoder(), ToTensor()],
                "label": [IntDecoder(), ToTensor(), Squeeze(1)],
            },
        )
        if work == F32:
            # Its NormalizeImage and ToTorchImage, which leave planes to a copy by torch, take twice as long.
            return Epochs(lambda: ((normalized(images), labels) for images, labels in loader))
        return loader


class RawPixels(Ffcv):
    name, mode = "FFCV raw", "raw"


class Jpeg(Ffcv):
    name, mode, code = "FFCV JPEG", "jpg", "JPEG"

    def reference(self):
        """FFCV writes JPEG with OpenCV."""
        import cv2

        options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
        files = (cv2.imencode(".jpg", image[..., ::-1], options)[1] for image in self.data.pixels)
        return np.stack([cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1] for file in files])


PEERS = [RawPixels, Jpeg]
