"""Makes QUALITY.md. `measure` measures rates, distortions and speeds and makes pictures; `speed` measures the speeds of
that again, `crops` makes the pictures alone, `page` writes the page from the results that are there."""

import argparse
import json
from pathlib import Path

from . import images, page, plots
from .images import CIFAR, KODAK, PHOTOGRAPHS

PAGE = Path("QUALITY.md")
RESULTS = Path("benches/results")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(required=True, dest="verb")
    measuring = verbs.add_parser("measure", help="measure, then write the page")
    measuring.add_argument("--images", type=Path, help="photographs of any size, brought to 224x224")
    measuring.add_argument("--kodak", type=Path, help="the Kodak suite, taken as it is, 768x512")
    measuring.add_argument("--kodak-books", type=Path, help="an archive with built-in codebooks trained without Kodak")
    measuring.add_argument("--cifar", type=Path, help="pictures of 32x32")
    measuring.add_argument("--most", type=int, help="pictures of a set, from all over it")
    verbs.add_parser("speed", help="measure the speed of what was measured again, then write the page")
    cropping = verbs.add_parser("crops", help="make the pictures, then write the page")
    for verb in measuring, cropping:
        verb.add_argument(
            "--crop-books", type=Path, help="the like for the pictures, without scikit-image's photographs"
        )
    verbs.add_parser("page", help="write the page from the results that are there")
    args = parser.parse_args()
    if args.verb == "measure":
        if not (args.images or args.kodak or args.cifar):
            parser.error("say which pictures: --images FOLDER, --kodak FOLDER, --cifar FOLDER")
        sets(args)
    if args.verb in ("measure", "speed"):
        from . import measure, speed

        for path, result in found():
            rows = result.pop("rows")
            speed.measure(rows, measure.TARGET / result["set"])
            images.write(path, result, rows)
    if args.verb in ("measure", "crops"):
        from . import crops

        crops.make(RESULTS, args.crop_books)
    results = [result for _, result in found()]
    for result in results:
        plots.draw(result, RESULTS / "quality" / f"{result['set']}.png")
    more = {name: read(RESULTS / f"quality-{name}.json") for name in ("crops", "training")}
    PAGE.write_text(page.page(results, RESULTS / "quality", **more))
    print(PAGE)


def sets(args):
    """Measures the sets; those that are not asked for stay as they were."""
    import kuat

    from . import measure

    builtin = {measure.BUILTIN: {"layers": {0: "builtin"}}}
    # Those that come with kuat were trained on Kodak's pictures, too.
    elsewhere = {f"{measure.BUILTIN}, trained on Kodak too": builtin[measure.BUILTIN]}
    if args.kodak_books:
        elsewhere = {f"{measure.BUILTIN}, trained without Kodak": {"layers": {0: kuat.KuatArchive(args.kodak_books)}}}
    if args.images:
        name = args.images.resolve().name
        elsewhere[f"of {name}"] = measure.measure(name, args.images, PHOTOGRAPHS, builtin, args.most)
    if args.kodak:
        measure.measure("kodak", args.kodak, KODAK, elsewhere, args.most)
    if args.cifar:
        measure.measure("cifar", args.cifar, CIFAR, builtin, args.most)


def found():
    """Results of sets, with their paths."""
    results = [(path, read(path)) for path in RESULTS.glob("quality-*.json")]
    # The smallest pictures come last.
    return sorted(
        ((path, result) for path, result in results if result.get("set")),
        key=lambda one: (min(one[1]["size"]) < 64, one[1]["set"]),
    )


def read(path):
    return json.loads(path.read_text()) if path.exists() else None


if __name__ == "__main__":
    main()
