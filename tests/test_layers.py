"""The codec "layers" read as FORMAT.md tells: by numpy over the public safetensors library."""

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open

import kuat

HERE = Path(__file__).parent
QUARTERS = {"luma8": 1, "luma4": 4, "chroma16": 1, "chroma8": 4}


def read(path):
    """All images of an archive, [samples, height, width, channels]."""
    with safe_open(path, "numpy") as file:
        meta, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    offsets = tensors["records.offsets"].astype(int)
    return np.stack([image(tensors["records"][a:b], tensors, meta) for a, b in zip(offsets, offsets[1:])])


def image(record, tensors, meta):
    height, width, channels, bits = (
        int(meta[key]) for key in ("image_height", "image_width", "channels", "index_bits")
    )
    sides = [8, 16][: 1 + (channels == 3)]
    grids = [(-(-height // side), -(-width // side)) for side in sides]
    counts = [-(-rows * columns // 32) for rows, columns in grids]
    groups, rest = record[: 4 * sum(counts)].reshape(-1, 4).astype(int), record[4 * sum(counts) :]
    unpacked = np.unpackbits(rest.view(np.uint8), bitorder="little")
    room = len(unpacked) // bits
    indices = unpacked[: room * bits].reshape(room, bits) @ (1 << np.arange(bits))
    luma = component("luma", 1, 8, grids[0], groups[: counts[0]], indices, tensors, meta)
    y = 128 + luma[:height, :width]
    if channels == 1:
        return y.clip(0, 255).astype(np.uint8)
    chroma = component("chroma", 2, 16, grids[1], groups[counts[0] :], indices, tensors, meta)
    cb, cr = np.moveaxis(chroma[:height, :width].clip(-128, 127), 2, 0)
    y = y[..., 0]
    red = y + cr + ((103 * cr + 128) >> 8)
    green = y - cr + ((73 * cr - 88 * cb + 128) >> 8)
    blue = y + cb + ((198 * cb + 128) >> 8)
    return np.stack([red, green, blue], axis=2).clip(0, 255).astype(np.uint8)


def component(name, planes, side, grid, groups, indices, tensors, meta):
    """The sums of a component's codewords at each pixel, [height, width, planes], in whole blocks."""
    modes = [
        [(tensors[book], QUARTERS[book.split(".")[0]]) for book in mode] for mode in json.loads(meta[f"{name}_modes"])
    ]
    numbers = np.arange(grid[0] * grid[1])
    chosen = sum((groups[numbers // 32, 1 + plane] >> numbers % 32 & 1) << plane for plane in range(3))
    lengths = np.array([sum(quarters for _, quarters in mode) for mode in modes])[chosen]
    sums = np.zeros((grid[0] * side, grid[1] * side, planes), int)
    for block in numbers:
        first = groups[block // 32, 0] + lengths[block // 32 * 32 : block].sum()
        for codewords, quarters in modes[chosen[block]]:
            size = side if quarters == 1 else side // 2
            for quarter in range(quarters):
                values = codewords[indices[first]].reshape(planes, *codewords.shape[-2:])
                values = values.repeat(size // values.shape[1], 1).repeat(size // values.shape[2], 2)
                top = block // grid[1] * side + quarter // 2 * size
                left = block % grid[1] * side + quarter % 2 * size
                sums[top : top + size, left : left + size] += values.transpose(1, 2, 0)
                first += 1
    return sums


def same(path):
    archive = kuat.KuatArchive(path)
    expected = read(path)
    found = archive.decode_batch(range(len(archive)), device="cpu")
    assert found.shape == expected.shape and (found == expected).all()


def test_random_layers():
    same(HERE / "frozen-layers.qvq")
