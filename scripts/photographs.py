"""Photographs for whoever gives none: `python scripts/photographs.py` fetches them and prints their folder."""

import subprocess
import sys
import zipfile
from pathlib import Path

FOLDER = Path("target/demo/photographs")
SIZE = 224
# Those of scikit-image's pictures that are photographs.
PHOTOGRAPHS = (
    "astronaut brick camera chelsea coffee coins grass gravel hubble_deep_field ihc moon motorcycle_left "
    "motorcycle_right retina rocket"
).split()
# Crops across a photograph at most, and pixels between the edges of neighbours at least.
CROPS, STEP = 5, 40


def photographs():
    """Cuts the photographs of the scikit-image package into crops, a folder for each photograph."""
    if FOLDER.exists():
        return FOLDER
    from PIL import Image

    print("fetching the photographs of the scikit-image package", file=sys.stderr, flush=True)
    work = FOLDER.parent
    work.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--only-binary", ":all:", "--dest", work, "scikit-image"], check=True)
    wheel = max(work.glob("scikit_image-*.whl"))
    partial = FOLDER.with_name("photographs.part")
    with zipfile.ZipFile(wheel) as package:
        for member in package.namelist():
            path = Path(member)
            if path.parent != Path("skimage/data") or path.stem not in PHOTOGRAPHS:
                continue
            with package.open(member) as file:
                photograph = Image.open(file).convert("RGB")
            target = partial / path.stem
            target.mkdir(parents=True, exist_ok=True)
            lefts, tops = (positions(side) for side in photograph.size)
            for top in tops:
                for left in lefts:
                    crop = photograph.crop((left, top, left + SIZE, top + SIZE))
                    crop.save(target / f"{top:04}-{left:04}.png")
    partial.rename(FOLDER)
    return FOLDER


def positions(side):
    """Where crops begin along a side: evenly spread over it."""
    room = side - SIZE
    count = min(CROPS, room // STEP + 1)
    return [round(room * i / max(count - 1, 1)) for i in range(count)]


if __name__ == "__main__":
    print(photographs())
