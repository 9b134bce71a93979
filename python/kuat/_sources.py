"""Items of data sets as the native half takes them."""

import operator
import os
import sys
from collections.abc import Iterable, Mapping

IMAGE_KEYS = ("image", "img", "jpg", "jpeg", "png", "webp")
LABEL_KEYS = ("label", "labels", "cls")
CAPTION_KEYS = ("caption", "text", "captions", "txt")


def is_indexed(source):
    """Whether the items of a source can be read by number, in any order and again."""
    data = sys.modules.get("torch.utils.data")
    if data is not None and isinstance(source, data.IterableDataset):
        # It has a __getitem__, which raises NotImplementedError.
        return False
    return hasattr(source, "__len__") and hasattr(source, "__getitem__")


def checked_classes(classes):
    """Class names as a list; None stays None."""
    if classes is None:
        return None
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        raise TypeError(f"classes is {classes!r}, expected a list of str")
    names = list(classes)
    if not _all_str(names):
        raise TypeError(f"classes is {classes!r}, expected a list of str")
    return names


def found_classes(source):
    """The class names that a source knows, as torchvision's data sets and Hugging Face's do; None if it has none."""
    classes = getattr(source, "classes", None)
    features = getattr(source, "features", None)
    if classes is None and isinstance(features, Mapping):
        names = (getattr(features.get(key), "names", None) for key in LABEL_KEYS)
        classes = next((found for found in names if found), None)
    if not isinstance(classes, (list, tuple)):
        return None
    # torchvision's ImageNet has several names for a class.
    names = [", ".join(name) if isinstance(name, tuple) and _all_str(name) else name for name in classes]
    return names if _all_str(names) else None


class Items:
    """Converts the items of one source. The first one that can be decides whether there are labels and captions."""

    def __init__(self, channels, classes, found=None):
        """`classes` are the caller's, or else `found` the source's."""
        self.has_labels = self.has_captions = None
        self._channels = channels
        self._given = classes is not None
        self._classes = classes if self._given else found

    @property
    def classes(self):
        """The names of the labels; None if there are none."""
        return self._classes if self.has_labels else None

    def convert(self, item, position):
        """An item as (uint8 array or path, label or None, caption or None)."""
        where = f"item {position}"
        image, label, caption = parts(item, where)
        picture = _picture(image, self._channels, where)
        label = _label(label, self._classes, where)
        if not (caption is None or isinstance(caption, str)):
            raise TypeError(f"the caption of {where} is {_kind(caption)}, expected a str or None")
        if self.has_labels is None:
            if self._given and label is None:
                raise ValueError(f"classes are given, but {where}, the first, has no label")
            self.has_labels, self.has_captions = label is not None, caption is not None
        if label is not None and not self.has_labels:
            raise ValueError(f"{where} has a label, but the first item has none; -1 stands for no label")
        if caption is not None and not self.has_captions:
            raise ValueError(f'{where} has a caption, but the first item has none; "" stands for no caption')
        return picture, label, caption


def _all_str(names):
    return all(isinstance(name, str) for name in names)


def _kind(value):
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"of type {name}"


def parts(item, where):
    """Image, label and caption of an item."""
    if isinstance(item, Mapping):
        keys = [next((key for key in keys if key in item), None) for keys in (IMAGE_KEYS, LABEL_KEYS, CAPTION_KEYS)]
        if keys[0] is None:
            found = ", ".join(map(repr, item))
            raise ValueError(f"{where} has the keys {found}, expected one of {', '.join(IMAGE_KEYS)} for the image")
        return [None if key is None else item[key] for key in keys]
    if isinstance(item, (tuple, list)):
        if not 1 <= len(item) <= 3:
            raise ValueError(
                f"{where} has {len(item)} parts, expected (image, label, caption), (image, label) or (image,)"
            )
        return [*item, None, None][:3]
    return item, None, None


def _label(label, classes, where):
    if label is None:
        return None
    try:
        number = operator.index(label)
    except TypeError:
        raise TypeError(f"the label of {where} is {_kind(label)}, expected an int or None") from None
    if classes is not None and not -1 <= number < len(classes):
        raise ValueError(
            f"the label of {where} is {number}, expected 0 to {len(classes) - 1}, as there are {len(classes)} classes, "
            "or -1 for none"
        )
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"the label of {where} is {number}, expected a number of 64 bits")
    return number


def _picture(image, channels, where):
    """An image as a path, or as a C-contiguous uint8 array: height x width, perhaps x 1 to 4 channels."""
    import numpy as np

    if isinstance(image, (str, os.PathLike)):
        return os.fsdecode(image)
    # An object of theirs can only be there if they were imported.
    pillow, torch = sys.modules.get("PIL.Image"), sys.modules.get("torch")
    if pillow is not None and isinstance(image, pillow.Image):
        array = _pillow_array(image, channels, where)
    elif torch is not None and isinstance(image, torch.Tensor):
        array = _tensor_array(image, where)
    elif hasattr(image, "__array__"):
        array = np.asarray(image)
    else:
        raise TypeError(
            f"the image of {where} is {_kind(image)}, expected a PIL image, a numpy array, a torch tensor or a path"
        )
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] > 4):
        raise ValueError(
            f"the image of {where} has the shape {array.shape}, expected height x width or height x width x channels "
            "(1 to 4, behind the sides in an array)"
        )
    if np.issubdtype(array.dtype, np.floating):
        array = _from_floats(array, where)
    elif array.dtype != np.uint8:
        raise TypeError(f"the image of {where} holds {array.dtype}, expected uint8, or floats from 0 to 1")
    return np.ascontiguousarray(array)


def _from_floats(array, where):
    import numpy as np

    least, greatest = array.min(), array.max()
    # Not the other way round: comparisons with NaN are false.
    if not (least >= 0 and greatest <= 1):
        raise ValueError(
            f"the image of {where} holds floats from {least} to {greatest}, expected 0 to 1; uint8 is taken as it is"
        )
    return np.rint(array.astype(np.float32, copy=False) * 255).astype(np.uint8)


def _pillow_array(image, channels, where):
    """The pixels of a PIL image, turned as its EXIF data says."""
    import numpy as np
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # PNG files of 16 bits are I in older and I;16 in newer versions of Pillow. As from files: the upper byte.
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError(
                f"the image of {where} (mode {image.mode}) holds {values.min()} to {values.max()}, expected 0 to 65535"
            )
        return (values >> 8).astype(np.uint8)
    if image.mode == "F":
        raise TypeError(f"the image of {where} is of PIL's mode F; convert it, or give floats from 0 to 1 as an array")
    transparent = channels == 4 and "transparency" in image.info
    if image.mode == "1":
        image = image.convert("L")
    elif transparent or image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("RGBA" if channels == 4 else "RGB")
    return np.asarray(image)


def _tensor_array(tensor, where):
    """A torch tensor as an array; channels move behind the sides."""
    import numpy as np

    if not (tensor.ndim == 2 or (tensor.ndim == 3 and 1 <= tensor.shape[0] <= 4)):
        raise ValueError(
            f"the image of {where} is a tensor of the shape {tuple(tensor.shape)}, expected height x width or channels "
            "x height x width (1 to 4 channels, before the sides in a tensor)"
        )
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        # numpy has no bfloat16.
        tensor = tensor.float()
    elif str(tensor.dtype) != "torch.uint8":
        raise TypeError(f"the image of {where} holds {tensor.dtype}, expected torch.uint8, or floats from 0 to 1")
    try:
        array = np.from_dlpack(tensor)
    except (AttributeError, BufferError, RuntimeError, TypeError):
        # An older numpy. The other way fails where torch was built for another numpy than is installed.
        array = tensor.numpy()
    return array if array.ndim == 2 else np.moveaxis(array, 0, -1)
