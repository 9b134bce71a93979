"""`python -m quality measure` measures and writes the page; `python -m quality page` writes it again."""

import argparse
import json
from pathlib import Path

from . import measure, page, plots

PAGE = Path("QUALITY.md")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(required=True, dest="verb")
    measuring = verbs.add_parser("measure", help="measure, then write the page")
    measuring.add_argument("--images", type=Path, help="photographs of any size, brought to 224x224")
    measuring.add_argument("--most", type=int, default=400, help="of the photographs, from all over the folder")
    measuring.add_argument("--kodak", type=Path, help="the Kodak suite, taken as it is, 768x512")
    verbs.add_parser("page", help="write the page from the results that are there")
    args = parser.parse_args()
    if args.verb == "measure":
        if args.images is None and args.kodak is None:
            parser.error("say which pictures: --images FOLDER, --kodak FOLDER or both")
        if args.kodak:
            measure.measure("kodak", args.kodak, (768, 512))
        if args.images:
            measure.measure(args.images.resolve().name, args.images, (224, 224), args.most)
    found = [json.loads(path.read_text()) for path in sorted(measure.RESULTS.glob("quality-*.json"))]
    for result in found:
        plots.draw(result, picture(result))
    PAGE.write_text(page.page(found, [picture(result).as_posix() for result in found]))
    print(PAGE)


def picture(result):
    return measure.RESULTS / "quality" / f"{result['set']}.png"


if __name__ == "__main__":
    main()
