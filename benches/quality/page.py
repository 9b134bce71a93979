"""Results as a page of Markdown."""

import math
import statistics
import textwrap

from report.page import number, table

from .images import JPEG, SHARED, WEBP

# Images of a data set, for what the codebooks add to each.
SETS = 1_000, 10_000, 100_000, 1_281_167


def page(results, folder, crops=None, training=None):
    """The text for results; pictures lie in `folder`."""
    sections = [head(results), costs(results)]
    sections += [details(result, folder / f"{result['set']}.png") for result in results]
    sections += [shown(crops, folder)] if crops else []
    sections += [trained(training)] if training else []
    sections.append(method(results))
    return (
        "\n\n".join(filled(part.strip()) for section in sections for part in section.split("\n\n") if part.strip())
        + "\n"
    )


def filled(part):
    """A paragraph with its lines filled; anything else as it is."""
    prose = part and part[0] not in "#|!<-"
    return textwrap.fill(part, 120, break_on_hyphens=False) if prose else part


def of(result, codec, books=None):
    """Rows, each size once: where codebooks have no use for more bytes, asking for more gives the same."""
    rows = [row for row in result["rows"] if row["codec"] == codec and books in (None, row.get("books"))]
    sizes = {(row.get("books"), row.get("patch"), row.get("codewords"), row["bytes_per_image"]): row for row in rows}
    return list(sizes.values())


def codebooks(result):
    """Where the codebooks of layers come from, in the order of the rows."""
    return list(dict.fromkeys(row["books"] for row in of(result, "layers")))


def interpolated(rows, x, y, at):
    """The value of column `y` where column `x` is `at`, between rows; None outside of them. Bytes and speeds are taken
    by their logarithm."""
    points = sorted((scale(x, row[x]), scale(y, row[y])) for row in rows if x in row and y in row)
    at = scale(x, at)
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        if x0 <= at <= x1 and x0 < x1:
            value = y0 + (at - x0) / (x1 - x0) * (y1 - y0)
            return math.exp(value) if y in LOGARITHMIC else value
    return None


LOGARITHMIC = "bytes_per_image", "images_per_s"


def scale(column, value):
    return math.log(value) if column in LOGARITHMIC else value


def beside(result, row):
    """A row with how far it is above JPEG and WebP in as many bytes, and how much faster than JPEG of the same PSNR;
    None where the other has nothing of the kind. Where JPEG's tables are counted once, it is that JPEG."""
    jpeg, size = of(result, SHARED) or of(result, JPEG), row["bytes_per_image"]

    def above(rivals, key):
        other = interpolated(rivals, "bytes_per_image", key, size)
        return None if other is None or key not in row else row[key] - other

    speed = interpolated(of(result, JPEG), "psnr_db", "images_per_s", row["psnr_db"])
    return {
        **row,
        "above_jpeg": above(jpeg, "psnr_db"),
        "pooled_above_jpeg": above(jpeg, "pooled_psnr_db"),
        "ssim_above_jpeg": above(jpeg, "ssim"),
        "above_webp": above(of(result, WEBP), "psnr_db"),
        "times_jpeg": row["images_per_s"] / speed if speed and "images_per_s" in row else None,
    }


def head(results):
    lines = []
    for result in results:
        for books in codebooks(result):
            rows = [beside(result, row) for row in of(result, "layers", books)]
            lines.append(
                [
                    f"{result['set']}, {result['size'][0]}x{result['size'][1]}",
                    books,
                    span([row["bytes_per_image"] for row in rows], "{:,.0f}"),
                    span([row["above_jpeg"] for row in rows], "{:+.1f} dB"),
                    span([row["pooled_above_jpeg"] for row in rows], "{:+.1f} dB"),
                    span([row["ssim_above_jpeg"] for row in rows], "{:+.3f}"),
                    span([row["above_webp"] for row in rows], "{:+.1f} dB"),
                    span([row["times_jpeg"] for row in rows], "{:.1f}"),
                ]
            )
    header = ["pictures", "codebooks", "bytes per image", "PSNR above JPEG", "of the mean error", "SSIM", "above WebP"]
    return f"""
# Quality

What archives lose, beside other codecs at equal bytes: PSNR, SSIM, the speed of decoding, and whether a network
learns as well from what is left. `make quality` makes this page.

## Layers beside JPEG and WebP

From the lowest rate to the highest; all rates stand below.

{table([*header, "times libjpeg-turbo's speed"], lines)}

{better(results)}
"""


def span(values, form):
    """The first and the last of values, those that are there."""
    values = [value for value in values if value is not None]
    ends = list(dict.fromkeys(form.format(value) for value in (values[0], values[-1]))) if values else ["none"]
    return " to ".join(ends)


def better(results):
    """Who is better, counted."""
    rows = [beside(result, row) for result in results for row in of(result, "layers")]
    said = []
    for codec, key in ("JPEG", "above_jpeg"), ("WebP", "above_webp"):
        gaps = [row[key] for row in rows if row[key] is not None]
        behind = [gap for gap in gaps if gap < 0]
        if behind:
            worst = f"by up to {-min(behind):.1f} dB"
            said.append(f"{codec} has the higher PSNR in {len(behind)} of {len(gaps)} rates below, {worst}.")
        elif gaps:
            said.append(f"Layers have the higher PSNR than {codec} at all {len(gaps)} rates below.")
    times = [row["times_jpeg"] for row in rows if row["times_jpeg"] is not None]
    if times:
        said.append(
            f"One thread decodes layers {min(times):.1f} to {max(times):.1f} times as fast as libjpeg-turbo does JPEG "
            f"files of the same PSNR, {statistics.median(times):.1f} times in the median."
        )
    if any("WebP has" in sentence for sentence in said):
        said.append("Whoever wants the smallest files, whatever decoding takes, should keep WebP.")
    return "**Where others are better.** " + " ".join(said) if said else ""


def costs(results):
    """What codebooks add to an image."""
    found = {}
    for result in results:
        for row in result["rows"]:
            if "codebook_bytes" in row:
                name = row["codec"] if row["codec"] == "layers" else vq(row)
                found.setdefault(name, []).append(row["codebook_bytes"])
    lines = []
    for name, sizes in found.items():
        most = max(sizes)
        shares = [number(math.ceil(most / count)) for count in SETS]
        lines.append([name, span(sorted(set(sizes)), "{:,.0f}"), *shares])
    return f"""
## Codebooks

Codebooks are stored once in an archive, and bytes per image are given without them. What they add to each image depends
on the number of images (the largest are divided here):

{table(["", "bytes of codebooks", *(f"each of {count:,} images" for count in SETS)], lines)}

The built-in codebooks, and those of another archive, spare a small set the training but not these bytes: an archive
holds all it is decoded with.
"""


def vq(row):
    return f"plain VQ, {row['patch']}x{row['patch']}, {number(row['codewords'])} codewords"


def details(result, picture):
    width, height = result["size"]
    main = [row for codec in ("layers", "plain VQ", "BC1") for row in of(result, codec)]
    files = [row for codec in (JPEG, SHARED, WEBP) for row in of(result, codec)]
    header = ["", "bytes", "PSNR", "SSIM", "above JPEG", "SSIM", "above WebP", "images/s", "times libjpeg-turbo"]
    lines = [
        [
            name(row),
            number(row["bytes_per_image"]),
            f"{row['psnr_db']:.2f}",
            f"{row['ssim']:.4f}",
            given(row["above_jpeg"], "{:+.2f} dB"),
            given(row["ssim_above_jpeg"], "{:+.4f}"),
            given(row["above_webp"], "{:+.2f} dB"),
            given(row.get("images_per_s"), "{:,.0f}"),
            given(row["times_jpeg"], "{:.1f}"),
        ]
        for row in (beside(result, row) for row in main)
    ]
    others = [
        [
            f"{row['codec']}, quality {row['setting']}",
            number(row["bytes_per_image"]),
            f"{row['psnr_db']:.2f}",
            f"{row['ssim']:.4f}",
            given(row.get("images_per_s"), "{:,.0f}"),
        ]
        for row in files
    ]
    tiny = (
        "Of pictures this small, a JPEG file is mostly tables. So they are held against JPEG files whose tables are "
        "those of the standard and are not counted, as if all files had them in common."
    )
    return f"""
## {result["set"]}, {width}x{height}

![PSNR and SSIM over bytes per image]({picture.as_posix()})

{tiny if of(result, SHARED) else ""}

{table(header, lines)}

<details><summary>JPEG and WebP</summary>

{table(["", "bytes", "PSNR", "SSIM", "images/s"], others)}

</details>
"""


def name(row):
    if row["codec"] == "BC1":
        return "BC1"
    return f"{row['codec'] if row['codec'] == 'layers' else vq(row)}; {row['books']}"


def given(value, form):
    return "" if value is None else form.format(value)


def shown(crops, folder):
    """The crops, each under its name."""
    pictures = "\n\n".join(
        f"![{picture}: original, and what each codec makes of it]({(folder / picture).as_posix()}.png)"
        for picture in dict.fromkeys(row["picture"] for row in crops["rows"])
    )
    return f"""
## Side by side

Crops of scikit-image's photographs, enlarged twice. Each photograph was encoded whole, in as many bytes as plain VQ
takes with patches of 4x4 pixels and 65,536 codewords: one bit per pixel. Codebooks are not counted. Layers have those
{crops["books"]}, plain VQ those {crops["vq_books"]}, all trained without these photographs. JPEG and WebP have the
lowest quality that takes no fewer bytes. Figures are those of the whole photograph.

{pictures}
"""


def trained(training):
    """Accuracies of a network, and how far they are from those of the original pixels."""
    lines = [
        [
            f"{row['set']}, {row['side']}x{row['side']}",
            row["codec"],
            number(row["bytes_per_image"]),
            f"{100 * statistics.mean(row['accuracy']):.1f} ± {100 * statistics.stdev(row['accuracy']):.1f} %",
            f"{100 * row['difference']:+.1f} ± {100 * row['standard_error']:.1f}" if row["standard_error"] else "",
            f"{100 * statistics.mean(row['accuracy_on_coded']):.1f} %",
        ]
        for row in training["rows"]
    ]
    apart = [row for row in training["rows"] if row["standard_error"]]
    far = [row for row in apart if abs(row["difference"]) > 2 * row["standard_error"]]
    said = f"{len(far)} of {len(apart)} differences are larger than twice their standard error" + (
        ": " + "; ".join(f"{row['codec']} in {number(row['bytes_per_image'])} bytes, {row['set']}" for row in far)
        if far
        else ""
    )
    header = ["pictures", "trained on", "bytes", "accuracy", "minus original pixels'", "tested on coded pictures"]
    counts = " and ".join(
        f"{row['images']:,} of {row['set']}" for row in training["rows"] if row["codec"] == "original pixels"
    )
    return f"""
## Does it train as well?

A small convolutional network is trained on original pixels, on layers, and on JPEG in as many bytes, and tested on
original pixels that it has not seen. There are few pictures ({counts}, ten classes), so accuracies are low: what
matters is whether they differ by more than chance. {said}.

{table(header, lines)}

Each of {training["seeds"]} seeds cuts the pictures into {training["parts"]} parts, and each part is tested on a network
that was trained on the others for {training["epochs"]} epochs: three convolutions (four for 64x64), pictures mirrored
and moved at random. ± after an accuracy is its standard deviation over seeds; after a difference its standard error
over the {training["seeds"] * training["parts"]} pairs of networks that began alike and saw the same pictures in the
same order.
Pictures are coded at the size at which the network sees them, so that every loss reaches it; had they been made smaller
after decoding, they would have lost less. Codebooks: {training["books"]}. JPEG's tables are not counted.
"""


def method(results):
    sets = "; ".join(
        f"{result['set']}: {result['measured']} images measured"
        + (f", codebooks trained on {result['trained']} others" if result["trained"] else "")
        + f", {result['date']}, commit {result['commit']}"
        for result in results
    )
    versions = ", ".join(f"{name} {version}" for name, version in results[0]["versions"].items()) if results else ""
    cpu = f" One thread of {results[0]['cpu']}." if results else ""
    text = f"""
## How it is measured

- All codecs get the same images at the same size, and all figures are means over these. Photographs have their shorter
  side brought to 256 pixels and the centre of 224x224 cut out. Kodak's pictures are taken as they are, portraits laid
  on their side, since images of an archive have one size.
- PSNR is that of all values of an image, the mean over images; an exact image counts as 100 dB. That of the mean error
  is of the squared errors of all images together, in which the worst weigh most. SSIM is that of Wang,
  Bovik, Sheikh and Simoncelli (2004) with an 11x11 Gaussian window, of each channel, then the mean.
- JPEG: libjpeg-turbo through Pillow, 4:2:0, optimised Huffman tables; WebP: lossy, method 6. BC1: cluster fit, colours
  weighted alike, as `kuat compare` has it; GPUs decode it by themselves. Bytes are those of whole files.
- kuat: mean bytes of records or index rows. Layers were encoded with `bytes_per_image`, with codebooks trained on those
  images of the set that are not measured, on another set, or the built-in ones.
- Above JPEG and WebP: at equal bytes, interpolated between the qualities around, over the logarithm of the bytes.
- Speed: batches of bytes, NHWC, by one thread, from files and archives in memory, all of a set's images in a batch; the
  median of seven rounds in which all codecs take turns. libjpeg-turbo through simplejpeg, interpolated between
  qualities to the same PSNR; WebP through Pillow.{cpu}
"""
    return f"{text}\n{sets}. {versions}."
