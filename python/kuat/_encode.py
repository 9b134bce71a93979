"""Making archives."""

import operator
import os
import time
from collections.abc import Iterable, Mapping

from . import _kuat
from ._progress import check, reporting
from ._sources import Items, checked_classes, found_classes, is_indexed, parts


def encode(
    source,
    path,
    *,
    classes=None,
    progress=True,
    **options,
):
    """Encodes images into an archive at `path`, which appears once it is whole, and returns a summary.

    The same images, options and version of kuat make the same file, byte for byte.

    Parameters
    ----------
    source
        Where the images come from; one of these:

        - A path. Reading and decoding run on all cores. It may be that of

          - a folder: one folder per class as for torchvision's ImageFolder, or images alone. JPEG, PNG, WebP and BMP
            files are read;
          - a list of images, .csv, .tsv or .jsonl (Hugging Face's metadata.csv and metadata.jsonl): paths relative to
            its folder under path, image, file, filename or file_name; labels, integers or class names, under label;
            captions under caption or text;
          - CIFAR-10 or CIFAR-100 in the binary or the Python version, the folder (of which the training images are
            taken) or a single file. Pickles are read without running what they name;
          - tar shards as WebDataset names them: a .tar file, a folder of them, or "shard-{000000..000009}.tar". Labels
            stand in .cls or .json, captions in .txt or .json.
        - An object with `__len__` and `__getitem__`: a data set of torchvision's or Hugging Face's, a list. Items are
          read on the thread that called, by number, some of them twice; they must be the same each time, so leave
          random transforms out.
        - Any other iterable: a generator, a `torch.utils.data.DataLoader(data, batch_size=None, num_workers=8)`. It
          is read once. Resized pixels go to a file without a name beside `path` until the archive is written: width x
          height x channels bytes per image.

        An item is an image, `(image,)`, `(image, label)`, `(image, label, caption)`, or a mapping with the image
        under "image" or "img" (also "jpg", "jpeg", "png", "webp"), the label under "label", "labels" or "cls", and
        the caption under "caption", "text", "captions" or "txt". Labels are integers, captions str, both may be None.
        Whether the archive has labels and captions is decided by the first item.

        An image is

        - a PIL image of any mode but F, turned as its EXIF data says; of 16-bit values the upper byte is kept;
        - an array of uint8, or of floats from 0 to 1: height x width or height x width x 1, 2, 3 or 4 (grey, grey and
          alpha, RGB, RGBA);
        - a torch tensor of uint8, or of floats from 0 to 1: height x width or channels x height x width;
        - the path of a file.
    path : str or PathLike
        The archive to write. A file that is there is replaced.
    size : int or (int, int), optional
        Side, or width and height, of the archive's images in pixels. The default is 224, or that of the archive that
        `codebook` is.
    codec : str, optional
        What images are encoded as. "vq": one codebook, and an index for each patch. "layers": as many codewords added
        up as each block needs, which is much better in as many bytes; not for RGBA. The default is "vq", or that of the
        archive that `codebook` is.
    quality : int, optional
        With codec="layers": how good, 1 to 100, in a scale like JPEG's; 75 by default.
    patch : int or (int, int), optional
        With codec="vq". Side, or width and height, of a patch in pixels, 1 to 16. Smaller is better and larger. The
        default is 4, or that of the archive that `codebook` is; for `psnr` and `target_bytes` several are tried.
    codebook : int, archive, array of uint8 or "builtin", optional
        With codec="vq": the most codewords to train, up to 2**25; more are better and slower; 65,536 by default. Or the
        codewords themselves, codewords x patch height x patch width x channels, or an archive to take them from: then
        nothing is trained, archives have one codebook in common, and each image is read once. With codec="layers" an
        archive to take the codebooks from, or "builtin" for those that come with kuat, trained on photographs of many
        kinds: right for few images. They are trained otherwise.
    max_error : int, optional
        With codec="vq", instead of `codebook`: no value of a decoded image differs from the resized one by more, 0 to
        255; 0 is lossless. The codebook is as large as that takes, up to 2**25 codewords.
    psnr : float, optional
        Instead of `codebook`: the smallest archive of this mean PSNR in dB, judged by a sample of the images. With
        codec="layers", instead of `quality`: every image reaches it, as far as the codebooks do, in as few bytes as
        that takes.
    target_bytes : int, optional
        Instead of `codebook`, or of `quality` with codec="layers": the best archive in so many bytes.
    bytes_per_image : int, optional
        With codec="layers", instead of `quality`: the best archive with so many bytes of an image in the mean.
    channels : int, optional
        1 (grey), 3 (RGB) or 4 (RGBA). Images are converted as Pillow does it.
    fit : str
        How images of another size are brought to it: "crop" (scaled until it is covered, then cut around the centre),
        "stretch" or "pad".
    filter : str
        How pixels are weighed in that, as in Pillow: "bilinear", "bicubic", "lanczos", "box" or "hamming".
    resize_short : int, optional
        With fit="crop": the short side is brought to so many pixels before the cut; 256 for size=224 is the usual
        evaluation on ImageNet. The default is what just covers the size.
    max_pixels : int
        An image file of more pixels is not decoded. The default is Pillow's.
    seed : int
        Chooses the patches to train on.
    on_error : str
        "fail": the first image that cannot be read ends the work. "skip": such images are left out and listed, in the
        summary and in `path` + ".skipped.json".
    device : str or int
        What searches for nearest codewords, with codec="layers" in training: "cpu", "gpu", "auto" (the best real GPU,
        or the CPU if there is none), or an adapter's name or number in `kuat.devices()`. The archive is the same.
    resume : bool
        Go on with an encoding to the same path that was interrupted: it ends in the same bytes. What took ten seconds
        or more is kept in the folder `path` + ".partial", from the end of the training on. The images with their
        captions and the options must be the same; if there is nothing to go on with, a new encoding begins. Not for
        iterables that are read once.
    classes : list of str, optional
        Names of the labels 0, 1, ... The default is what the source knows: the names of folders, of a list's or
        shards' labels, or of CIFAR's classes, `source.classes`, or the names in a Hugging Face data set's features.
    progress : bool or callable
        True shows bars. A callable gets `(stage, done, total)` on the thread that called; total is 0 if not known.

    Returns
    -------
    dict
        What `kuat encode --json` prints: "archive", "samples", "skipped", "classes", "codec", "patch", "codewords",
        "codebook_bytes", "max_error", "uniform_cells", "device", "index_bits", "bytes_per_image" (the mean, with
        codec="layers"), "file_len", "mean_psnr_db", "min_psnr_db", "pooled_psnr_db", "resumed", and the seconds. With
        `max_error`, "uniform_cells" is how many distinct patches uniform quantisation to the same bound leaves (None if
        there were too many to count).

    Raises
    ------
    TypeError, ValueError
        An argument or an item is not what it should be. The message says which and why.
    kuat.Error
        An image file cannot be decoded, or every image was skipped.
    OSError
        A file cannot be read or written.
    Exception
        Whatever the source raises, as it is.
    """
    _check_over(options.get("codebook"), path)
    options = _options(**options)
    classes = checked_classes(classes)
    path = os.fsdecode(path)
    with reporting(progress) as report:
        if isinstance(source, (str, os.PathLike)):
            return _kuat.encode_path(os.fsdecode(source), path, options, classes, report)
        if isinstance(source, Mapping) or not (is_indexed(source) or isinstance(source, Iterable)):
            # A mapping may be a Hugging Face DatasetDict.
            kind = type(source).__name__
            raise TypeError(f"source is a {kind}, expected a path, a data set or an iterable of items (of one split)")
        if isinstance(source, (list, tuple)):
            replaced = _replaced(path)
            for position, item in enumerate(source if replaced else ()):
                _check_item(item, position, replaced)
        items = Items(options.channels, classes, found_classes(source))
        if not is_indexed(source):
            if options.resume:
                raise ValueError("resume is True, expected False for images that can be read only once")
            return _encode_once(source, path, options, items, report)
        count = len(source)
        for index in range(count):
            # The first item that can be read decides on labels and captions.
            try:
                items.convert(source[index], index)
                break
            except Exception:
                if options.on_error != "skip":
                    raise

        def read(index):
            return items.convert(source[index], index)

        labels, captions = bool(items.has_labels), bool(items.has_captions)
        return _kuat.encode_source(read, count, labels, captions, items.classes, path, options, report)


def _encode_once(source, path, options, items, report):
    """Encodes an iterable that may be read only once."""
    total = operator.length_hint(source)
    reported = 0.0
    with ArchiveWriter._of(path, options, items, report) as writer:
        for position, item in enumerate(source):
            writer._add(item)
            if report is not None and time.monotonic() - reported > 0.05:
                report("reading", position + 1, total)
                reported = time.monotonic()
        if report is not None:
            report("reading", writer._position, total)
    return writer.summary


class ArchiveWriter:
    """Makes an archive of images that come one by one.

    The archive is trained, encoded and written by `close()`, until when resized pixels are kept in a file without a
    name beside `path`: width x height x channels bytes per image. Parameters, images, labels and errors are those of
    `kuat.encode`.

    In a `with` statement the archive is closed at its end, or discarded if that is left by an exception::

        with kuat.ArchiveWriter("out.qvq", size=256, classes=["cat", "dog"]) as writer:
            for image, label in images:
                writer.add(image, label)
        print(writer.summary["mean_psnr_db"])
    """

    def __init__(
        self,
        path,
        *,
        classes=None,
        progress=True,
        **options,
    ):
        _check_over(options.get("codebook"), path)
        options = _options(**options)
        if options.resume:
            raise ValueError("resume is True, expected False for images that come one by one")
        self._start(path, options, Items(options.channels, checked_classes(classes)), progress)

    @classmethod
    def _of(cls, *arguments):
        writer = cls.__new__(cls)
        writer._start(*arguments)
        return writer

    def _start(self, path, options, items, progress):
        check(progress)
        self._writer = _kuat.ArchiveWriter(os.fsdecode(path), options)
        self._skip = options.on_error == "skip"
        self._items = items
        self._progress = progress
        self._replaced = _replaced(path)
        self._position = 0
        self._summary = None
        self._discarded = False

    def add(self, image, label=None, caption=None):
        """Adds an image, with a label (int) and a caption (str) if the first image has them."""
        self._add((image, label, caption))

    def _add(self, item):
        position = self._position
        _check_item(item, position, self._replaced)
        self._position += 1
        try:
            picture, label, caption = self._items.convert(item, position)
        except Exception as error:
            if not self._skip:
                raise
            self._writer.skip(position, f"{type(error).__name__}: {error}")
        else:
            self._writer.add(position, picture, label, caption)

    def __len__(self):
        """How many images were added and not skipped."""
        return len(self._writer)

    def close(self):
        """Trains, encodes and writes the archive; returns the summary of `kuat.encode`.

        If it fails or is interrupted there is no archive, and the images are gone. Closing again does nothing.
        """
        if self._summary is None:
            with reporting(self._progress) as report:
                self._summary = self._writer.close(self._items.classes, report)
        return self._summary

    def discard(self):
        """Forgets the images. There will be no archive; one that is closed stays."""
        self._writer.discard()
        self._discarded = True

    @property
    def summary(self):
        """What `close()` returned; None before."""
        return self._summary

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if kind is not None:
            self.discard()
        elif not self._discarded:
            self.close()


def _options(
    *,
    size=None,
    codec=None,
    quality=None,
    patch=None,
    codebook=None,
    max_error=None,
    psnr=None,
    target_bytes=None,
    bytes_per_image=None,
    channels=None,
    fit="crop",
    filter="bilinear",
    resize_short=None,
    max_pixels=178_956_970,
    seed=0,
    on_error="fail",
    device="cpu",
    resume=False,
):
    """The checked options of the native half."""
    for name, value in (("fit", fit), ("filter", filter), ("on_error", on_error)):
        if not isinstance(value, str):
            raise TypeError(f"{name} is {value!r}, expected a str")
    if codec is None:
        codec = "layers" if _is_builtin(codebook) else getattr(codebook, "codec", "vq")
    if codec not in ("vq", "layers"):
        raise ValueError(f"codec is {codec!r}, expected 'vq' or 'layers'")
    layers = codec == "layers"
    goals = {"quality": quality, "psnr": psnr, "target_bytes": target_bytes, "bytes_per_image": bytes_per_image}
    ways = {"codebook": codebook, "max_error": max_error}
    foreign = (
        {"patch": patch, "max_error": max_error} if layers else {"quality": quality, "bytes_per_image": bytes_per_image}
    )
    for name, value in foreign.items():
        if value is not None:
            raise ValueError(f"{name} is {value!r}, expected None with codec={codec!r}")
    given = [name for name, value in (goals if layers else {**ways, **goals}).items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} are given, expected one of them")
    goal = None
    if psnr is not None:
        goal = ("psnr", float(psnr))
    elif target_bytes is not None:
        goal = ("bytes", _integer("target_bytes", target_bytes, 64))
    elif bytes_per_image is not None:
        goal = ("bytes_per_image", _integer("bytes_per_image", bytes_per_image, 64))
    elif quality is not None:
        goal = ("quality", _integer("quality", quality, 8))
    if layers and not (isinstance(codebook, (_kuat.KuatArchive, type(None))) or _is_builtin(codebook)):
        expected = "an archive to take the codebooks of its layers from, or 'builtin'"
        raise TypeError(f"codebook is {codebook!r}, expected {expected}")
    # What an archive knows of itself that its codebook is taken from.
    shape = getattr(codebook, "dimensions", (3, 224, 224))
    sides = (4, 4) if layers else getattr(codebook, "patch_shape", (4, 4))
    return _kuat.Options(
        size=shape[:0:-1] if size is None else _pair("size", size),
        layers=layers,
        books=codebook if layers else None,
        patch=sides[::-1] if patch is None else _pair("patch", patch),
        any_patch=patch is None,
        codebook=65_536 if layers or codebook is None else _codebook(codebook),
        max_error=None if max_error is None else _integer("max_error", max_error, 8),
        goal=goal,
        channels=shape[0] if channels is None else _integer("channels", channels),
        fit=fit,
        filter=filter,
        resize_short=None if resize_short is None else _integer("resize_short", resize_short),
        max_pixels=_integer("max_pixels", max_pixels, 64),
        seed=_integer("seed", seed, 64),
        on_error=on_error,
        device=device,
        resume=bool(resume),
    )


def _check_over(codebook, path):
    """Sees to it that an archive is not replaced by one that is made with its codebook."""
    if isinstance(codebook, _kuat.KuatArchive) and os.path.exists(path) and os.path.samefile(codebook.path, path):
        raise ValueError(f"path is {os.fspath(path)!r}, the archive whose codebook is taken, expected another file")


def _replaced(path):
    """What tells the file that is at a path from others; None if there is none."""
    return os.stat(path) if os.path.isfile(path) else None


def _check_item(item, position, replaced):
    """Sees to it that an image is not replaced by the archive that is made of it."""
    try:
        image = parts(item, f"item {position}")[0] if replaced else None
    except ValueError:
        return  # What is no item is an error where it is converted, or is left out there.
    if isinstance(image, (str, os.PathLike)) and os.path.exists(image):
        if os.path.samestat(os.stat(image), replaced):
            raise ValueError(f"item {position} is {os.fspath(image)!r}, which the archive would replace")


def _is_builtin(codebook):
    return isinstance(codebook, str) and codebook == "builtin"


def _codebook(codebook):
    """The most codewords, or an array of them."""
    try:
        operator.index(codebook)
    except TypeError:
        pass
    else:
        return _integer("codebook", codebook)
    import numpy as np

    # An archive has one.
    array = getattr(codebook, "codebook", codebook)
    if not hasattr(array, "__array__"):
        raise TypeError(f"codebook is {codebook!r}, expected an int, an archive or an array of uint8")
    array = np.asarray(array)
    if array.dtype != np.uint8:
        raise TypeError(f"codebook holds {array.dtype}, expected uint8")
    return np.ascontiguousarray(array)


def _pair(name, value):
    """Width and height, of which one number says both."""
    if not isinstance(value, (tuple, list)):
        value = (value, value)
    if len(value) != 2:
        raise ValueError(f"{name} is {value!r}, expected a number, or width and height")
    return _integer(name, value[0]), _integer(name, value[1])


def _integer(name, value, bits=32):
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, expected an int") from None
    if not 0 <= number < 1 << bits:
        raise ValueError(f"{name} is {number}, expected a number from 0 to 2**{bits} - 1")
    return number
