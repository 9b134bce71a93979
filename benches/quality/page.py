"""Results as a page of Markdown."""

import math
import textwrap

from report.page import number, table

JPEG = "JPEG 4:2:0"


def page(results, pictures):
    """The text for results; `pictures` has an address for each."""
    sections = [head(results)]
    sections += [details(result, picture) for result, picture in zip(results, pictures)]
    sections.append(method(results))
    return "\n\n".join(section.strip() for section in sections) + "\n"


def head(results):
    lines = [line for result in results for line in beside(result)]
    better = sum(line["psnr_db"] < line["jpeg_psnr_db"] for line in lines)
    ssim = sum(line["ssim"] < line["jpeg_ssim"] for line in lines)
    return wrapped(f"""
# Quality

What vector quantisation loses, beside other codecs: PSNR and SSIM over bytes per image. `make quality` makes this
page.

**Where JPEG is better.** At equal bytes, JPEG has the higher PSNR in {share(better, lines)} of the comparisons below,
and the higher SSIM in {share(ssim, lines)}. {gaps(lines)} {webp(results)}{below(results)}Whoever wants the smallest
files for a quality, or the best quality for a size, should keep JPEG or WebP.

**What kuat's bytes buy.** An index row is decoded by looking up its patches, without entropy decoding or a transform,
in the same time for every image, on any processor and any GPU: 6 to 18 times the images per second of libjpeg-turbo on
the same two cores ([BENCHMARKS.md](BENCHMARKS.md)). Rows have one length, so that any image is found without an index.
BC1, which GPUs decode by themselves, is as simple, but its rate is fixed; kuat's follows from patch and codebook.
{bc1(results)}

**The codebook counts.** It is stored once, so what it adds to an image depends on the number of images: 65,536
codewords of 4x4 pixels are 3.1 MB, 3,146 bytes for each of 1,000 images, 2 for each of 1.3 million. Below, an index
row's bytes are held against a codebook that was trained on *other* images, as it is when a data set is large, and the
whole file's bytes against one trained on the *same* images, which is better and must be paid for by these few.
""")


def wrapped(text):
    """Paragraphs, their lines filled."""
    return "\n\n".join(textwrap.fill(part, 120, break_on_hyphens=False) for part in text.strip().split("\n\n"))


def share(count, lines):
    return "all" if count == len(lines) else f"{count} of {len(lines)}"


def gaps(lines):
    found = [line["jpeg_psnr_db"] - line["psnr_db"] for line in lines]
    return f"The difference is {min(found):.1f} to {max(found):.1f} dB."


def webp(results):
    """How WebP does beside JPEG."""
    pairs = [
        (row["psnr_db"], interpolated(of(result, JPEG), "bytes_per_image", "psnr_db", row["bytes_per_image"]))
        for result in results
        for row in of(result, "WebP")
    ]
    pairs = [(webp, jpeg) for webp, jpeg in pairs if jpeg is not None]
    if not pairs:
        return ""
    return f"WebP has a higher PSNR than JPEG in {share(sum(a > b for a, b in pairs), pairs)} of its rows. "


def below(results):
    """Where kuat has more PSNR in fewer bytes than JPEG can have."""
    said = []
    for result in results:
        least = min(of(result, JPEG), key=lambda row: row["bytes_per_image"])
        better = [
            row
            for row in of(result, "kuat")
            if row["trained_on"] == "other images"
            and row["bytes_per_image"] <= least["bytes_per_image"]
            and row["psnr_db"] > least["psnr_db"]
        ]
        for row in better:
            said.append(
                f"On {result['set']}, {row['patch']}x{row['patch']} patches have {row['psnr_db']:.1f} dB in "
                f"{number(row['bytes_per_image'])} bytes, the codebook not counted, and JPEG of quality "
                f"{least['setting']} {least['psnr_db']:.1f} dB in {number(least['bytes_per_image'])}. "
            )
    return ("Only where JPEG's headers outweigh its data is kuat better. " + "".join(said)) if said else ""


def of(result, codec):
    return [row for row in result["rows"] if row["codec"] == codec]


def bc1(results):
    """How kuat's nearest row does beside BC1."""
    said = []
    for result in results:
        rows = result["rows"]
        for other in of(result, "BC1"):
            ours = [
                row
                for row in rows
                if row["codec"] == "kuat"
                and row["trained_on"] == "other images"
                and row["bytes_per_image"] <= other["bytes_per_image"]
            ]
            if ours:
                best = max(ours, key=lambda row: row["psnr_db"])
                said.append(
                    f"On {result['set']} it has {other['psnr_db']:.1f} dB at {number(other['bytes_per_image'])} bytes, "
                    f"kuat with a codebook of other images {best['psnr_db']:.1f} dB at "
                    f"{number(best['bytes_per_image'])}."
                )
    return " ".join(said)


def interpolated(rows, x, y, at):
    """The value of column `y` where column `x` is `at`, between rows; None outside of them. Bytes are taken by their
    logarithm."""
    points = sorted((scale(x, row[x]), scale(y, row[y])) for row in rows)
    at = scale(x, at)
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        if x0 <= at <= x1 and x0 < x1:
            value = y0 + (at - x0) / (x1 - x0) * (y1 - y0)
            return math.exp(value) if y == "bytes_per_image" else value
    return None


def scale(column, value):
    return math.log(value) if column == "bytes_per_image" else value


def beside(result):
    """kuat's rows with JPEG at equal bytes, and the bytes that JPEG takes for equal PSNR, where its qualities reach."""
    jpeg = of(result, JPEG)
    lines = []
    for row in of(result, "kuat"):
        size = row["bytes_per_image" if row["trained_on"] == "other images" else "file_bytes_per_image"]
        psnr, ssim = (interpolated(jpeg, "bytes_per_image", key, size) for key in ("psnr_db", "ssim"))
        if psnr is not None:
            equal = interpolated(jpeg, "psnr_db", "bytes_per_image", row["psnr_db"])
            lines.append({**row, "bytes": size, "jpeg_psnr_db": psnr, "jpeg_ssim": ssim, "jpeg_bytes": equal})
    return lines


def details(result, picture):
    width, height = result["size"]
    header = [
        "patch",
        "codewords",
        "codebook of",
        "bytes",
        "PSNR",
        "SSIM",
        "JPEG: PSNR",
        "SSIM",
        "bytes for equal PSNR",
    ]
    lines = [
        [
            f"{row['patch']}x{row['patch']}",
            number(row["codewords"]),
            row["trained_on"] + (", counted" if row["trained_on"] != "other images" else ""),
            number(row["bytes"]),
            f"{row['psnr_db']:.2f}",
            f"{row['ssim']:.3f}",
            f"{row['jpeg_psnr_db']:.2f}",
            f"{row['jpeg_ssim']:.3f}",
            number(row["jpeg_bytes"]) if row["jpeg_bytes"] else "below quality 5",
        ]
        for row in beside(result)
    ]
    every = [
        [
            row["codec"],
            setting(row),
            number(row["bytes_per_image"]),
            number(row["file_bytes_per_image"]) if "file_bytes_per_image" in row else "",
            f"{row['psnr_db']:.2f}",
            f"{row['first_percentile_db']:.2f}" if "first_percentile_db" in row else "",
            f"{row['ssim']:.4f}",
        ]
        for row in result["rows"]
    ]
    columns = ["codec", "setting", "bytes per image", "with the codebook", "PSNR in dB", "1st percentile", "SSIM"]
    return f"""
## {result["set"]}, {width}x{height}

![PSNR and SSIM over bytes per image]({picture})

### Beside JPEG at equal bytes

{table(header, lines)}

Rows of fewer bytes than JPEG of quality 5, or more than of quality 100, have nothing to stand beside and are left out.

<details><summary>All {len(every)} rows</summary>

{table(columns, every)}

</details>
"""


def setting(row):
    if row["codec"] != "kuat":
        return row["setting"] if isinstance(row["setting"], str) else f"quality {row['setting']}"
    return f"{row['patch']}x{row['patch']}, {number(row['codewords'])} codewords, codebook of {row['trained_on']}"


def method(results):
    sets = "; ".join(
        f"{result['set']}: {result['images']} images of {result['size'][0]}x{result['size'][1]}, {result['measured']} "
        f"measured, {result['date']}, commit {result['commit']}"
        for result in results
    )
    versions = ", ".join(f"{name} {version}" for name, version in results[0]["versions"].items()) if results else ""
    return f"""
## How it is measured

- All codecs get the same images at the same size, and all figures are means over the same images: every other image is
  for training codebooks, of the rest at most 100, from all over the set, are measured. Kodak's pictures are taken as
  they are, portraits laid on their side, since images of an archive have one size. Photographs have their shorter side
  brought to 224 pixels and the centre cut out.
- PSNR is that of all values of an image, the mean over images; an exact image counts as 100 dB. SSIM is that of Wang,
  Bovik, Sheikh and Simoncelli (2004) with an 11x11 Gaussian window, of each channel, then the mean. 1st percentile: of
  the PSNR that the archive records for each of its samples.
- JPEG: libjpeg-turbo through Pillow, 4:2:0, optimised Huffman tables; WebP: lossy, method 6. BC1: cluster fit, colours
  weighted alike, as `kuat compare` has it. Bytes are those of whole files, headers included.
- kuat: codebooks trained as `kuat encode` does by default. *Other images*: trained on the images that are not measured
  (`kuat.encode(.., codebook=archive)`), bytes of the index row alone. *The same images*: trained on all images, those
  measured among them, bytes of the whole file over its images.
- JPEG at equal bytes is interpolated between the qualities around, over the logarithm of the bytes.

{sets}. {versions}.
"""
