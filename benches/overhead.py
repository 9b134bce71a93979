"""What `archive.decode_batch` costs beside the Rust decoder it calls: the ratio of their rates, on the CPU.

`python benches/overhead.py ARCHIVE`, after `cargo build --release --example throughput`. The two take turns, five
times; each decodes random batches for a second, the Python package into its warm pool, Rust into one warm buffer.
"""

import argparse
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np

import kuat

THROUGHPUT = Path(__file__).parent.parent / "target/release/examples/throughput"
OUTPUTS = {
    "u8": {"dtype": "u8"},
    "f32": {"dtype": "f32", "layout": "NCHW", "mean": kuat.IMAGENET_MEAN, "std": kuat.IMAGENET_STD},
}


def rust(path, batch, dtype):
    """Images per second of the median batch."""
    answer = subprocess.run([THROUGHPUT, path, str(batch), dtype], stdout=subprocess.PIPE, check=True)
    return float(answer.stdout)


def python(archive, batch, dtype):
    """Images per second of the median batch."""
    random = np.random.default_rng(0)
    times = []
    end = time.perf_counter() + 1
    images = None
    while time.perf_counter() < end:
        ids = random.integers(0, len(archive), batch).tolist()
        start = time.perf_counter()
        images = None  # What a training loop drops with each step goes back to the pool.
        images = archive.decode_batch(ids, device="cpu", **OUTPUTS[dtype])
        times.append(time.perf_counter() - start)
    assert len(images) == batch
    return batch / statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("archive")
    path = parser.parse_args().archive
    archive = kuat.KuatArchive(path)
    print(f"{'dtype':6}{'batch':>6}{'Rust':>10}{'Python':>10}{'ratio':>8}   (images/s, medians of five; of ratios)")
    for dtype in OUTPUTS:
        for batch in (64, 256):
            rounds = [(rust(path, batch, dtype), python(archive, batch, dtype)) for _ in range(5)]
            ratio = statistics.median(b / a for a, b in rounds)
            medians = [statistics.median(column) for column in zip(*rounds)]
            print(f"{dtype:6}{batch:6}{medians[0]:10.0f}{medians[1]:10.0f}{ratio:8.2f}")


if __name__ == "__main__":
    main()
