"""Archives read with numpy alone, as FORMAT.md says."""

import json
import struct
from pathlib import Path

import numpy as np


def parsed(path):
    """The metadata and tensors of an archive, by the safetensors format."""
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    dtypes = {"U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8", "I64": "<i8", "F32": "<f4"}
    metadata = header.pop("__metadata__")
    tensors = {}
    for name, tensor in header.items():
        begin, end = (8 + length + offset for offset in tensor["data_offsets"])
        tensors[name] = np.frombuffer(data[begin:end], dtypes[tensor["dtype"]]).reshape(tensor["shape"])
    return metadata, tensors


def indices(path):
    """The indices of an archive: samples x grid height x grid width."""
    metadata, tensors = parsed(path)
    height, width, bits = (int(metadata[key]) for key in ("image_height", "image_width", "index_bits"))
    rows = tensors["indices"]
    _, p, q, _ = tensors["codebook"].shape
    grid = -(-height // p), -(-width // q)
    if bits not in (8, 16, 32):
        flat = np.unpackbits(rows.view(np.uint8).reshape(len(rows), -1), axis=1, bitorder="little")
        flat = flat[:, : grid[0] * grid[1] * bits].reshape(len(rows), -1, bits)
        rows = (flat.astype(np.int64) << np.arange(bits)).sum(-1)
    return rows.reshape(-1, *grid)


def assembled(codebook, indices, height, width):
    """Images of codewords."""
    _, p, q, channels = codebook.shape
    n, down, across = indices.shape
    images = codebook[indices].transpose(0, 1, 3, 2, 4, 5).reshape(n, down * p, across * q, channels)
    return images[:, :height, :width]


def decoded(path):
    """The images of an archive."""
    metadata, tensors = parsed(path)
    return assembled(tensors["codebook"], indices(path), int(metadata["image_height"]), int(metadata["image_width"]))


def captions(path):
    _, tensors = parsed(path)
    text, offsets = tensors["captions.bytes"].tobytes(), tensors["captions.offsets"]
    return [text[begin:end].decode() for begin, end in zip(offsets, offsets[1:])]
