"""What kuat's training loses against full Lloyd iterations with brute-force assignment, those of FAISS, in dB.

`python benches/lloyd.py FOLDER --patch 4`, in an environment with faiss-cpu and pillow, after
`cargo build --release --example codebook`. Both train on the same patches; the codewords of FAISS are then rounded to
bytes, which is what an archive holds. All patches of all images are assigned by brute force to either codebook. Prints
a line of JSON.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path

import faiss
import numpy as np
from PIL import Image, ImageOps

CODEBOOK = Path(__file__).parent.parent / "target/release/examples/codebook"
SIDE = 224
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of photographs, with or without folders in it")
    parser.add_argument("--patch", type=int, default=4)
    parser.add_argument("--codewords", type=int, default=16384)
    parser.add_argument("--patches", type=int, default=1 << 20, help="to train on")
    parser.add_argument("--iterations", type=int, default=25, help="of FAISS")
    arguments = parser.parse_args()

    patches = photographs(arguments.images, arguments.patch)
    everything = patches.reshape(-1, patches.shape[2])
    chosen = np.random.default_rng(0).choice(len(everything), min(arguments.patches, len(everything)), replace=False)
    training = everything[np.sort(chosen)]
    row = {"table": "encode_lloyd", "patch": arguments.patch, "training_patches": len(training)}
    row |= {"codewords": arguments.codewords, "images": len(patches), "faiss_iterations": arguments.iterations}
    for name, train in [("kuat", kuat_codebook), ("faiss", faiss_codebook)]:
        start = time.monotonic()
        codebook = train(training, arguments)
        row[f"{name}_training_seconds"] = round(time.monotonic() - start, 1)
        row[f"{name}_psnr_db"] = mean_psnr(codebook, patches)
    row["difference_db"] = row["kuat_psnr_db"] - row["faiss_psnr_db"]
    print(json.dumps(row))


def photographs(folder, patch):
    """(images, patches, values) uint8: every image cropped to a square and cut into patches."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    grid = SIDE // patch
    images = np.empty((len(paths), grid**2, patch**2 * 3), np.uint8)
    for path, image in zip(paths, images):
        picture = ImageOps.fit(Image.open(path).convert("RGB"), (SIDE, SIDE), Image.Resampling.BILINEAR)
        pixels = np.asarray(picture).reshape(grid, patch, grid, patch * 3)
        image[:] = pixels.swapaxes(1, 2).reshape(grid**2, -1)
    return images


def kuat_codebook(training, arguments):
    command = [CODEBOOK, str(training.shape[1]), str(arguments.codewords)]
    codebook = subprocess.run(command, input=training.tobytes(), stdout=subprocess.PIPE, check=True).stdout
    return np.frombuffer(codebook, np.uint8).reshape(-1, training.shape[1])


def faiss_codebook(training, arguments):
    kmeans = faiss.Kmeans(
        training.shape[1],
        arguments.codewords,
        niter=arguments.iterations,
        # No patch is left out.
        max_points_per_centroid=len(training),
        seed=1,
    )
    kmeans.train(training.astype(np.float32))
    return np.rint(kmeans.centroids).astype(np.uint8)


def mean_psnr(codebook, patches):
    """Over the images, in dB."""
    index = faiss.IndexFlatL2(codebook.shape[1])
    index.add(codebook.astype(np.float32))
    errors = [index.search(image.astype(np.float32), 1)[0].mean() / image.shape[1] for image in patches]
    return float(np.mean(10 * np.log10(255**2 / np.maximum(errors, 1e-9))))


if __name__ == "__main__":
    main()
