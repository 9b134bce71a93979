"""A result as a page of Markdown."""

from .bars import bars, is_software
from .rows import Rows, ours, ratio, shown

# As the original published them: ImageWoof, 9,025 images, 224x224.
PUBLISHED = (
    ("ImageFolder", 691),
    ("kuat, CPU, batch 64", 4_168),
    ("kuat, CPU, batch 512", 6_252),
    ("kuat, GPU", "50,000+"),
)
F32, U8 = "f32 NCHW", "u8 NHWC"
FILES = "torchvision ImageFolder"
# A table of more rows is folded up.
LONG = 12


def page(results, pictures):
    """The text for results, the first in full view; `pictures` has for each {name: address}."""
    first = results[0]
    sections = [head(first, pictures[0])]
    sections += [original(results), held(results)]
    for result, drawn in zip(results, pictures):
        sections.append(details(result, drawn))
    sections.append(method(first))
    return "\n\n".join(section.strip() for section in sections if section) + "\n"


def apart(found):
    """Who was measured in another run than most."""
    runs = [row.get("run") for row in found]
    usual = max(runs, key=runs.count, default=None)
    others = [row["peer"] for row in found if row.get("run") != usual]
    return f", except {', '.join(others)}, in a run on the same machine soon after" if others else ""


def head(result, pictures):
    """One picture, one table, and who wins."""
    rows = shown(measured(result)).where(batch=256)
    facts = result["provenance"]
    found = sorted(rows.where(work=F32), key=lambda row: -row["images_per_s"])
    text = [
        "# Benchmarks",
        f"Random batches of 256 photographs of 224x224 as normalised float32 tensors, ready for training: "
        f"{facts['dataset']['name']}, {facts['dataset']['images']:,} images, on {facts['cores']} cores of "
        f"{facts['cpu']}. Every row does the same work and was checked to yield the right images; all took turns in "
        f"one run{apart(found)}. `make bench` makes this page.",
    ]
    if not found:
        return "\n\n".join([*text, "The peers were not measured."])
    base = next((row for row in found if row["peer"] == FILES), found[-1])
    text.append(picture(pictures, "peers", "Images per second of kuat and its peers"))
    header = ["", "images/s", f"/ {base['peer']}", "bytes per image", "quality (PSNR)"]
    lines = [
        [
            f"**{row['peer']}**" if ours(row) else row["peer"],
            number(row["images_per_s"]),
            f"{ratio(row, base):.1f}",
            size(row),
            quality(row),
        ]
        for row in found
    ]
    text.append(table(header, lines))
    text.append("### Where others win\n\n" + wins(measured(result)))
    return "\n\n".join(text)


def wins(rows):
    """Plainly: who is faster, smaller or better, and in what."""
    lines = []
    for work in (F32, U8):
        for patch in rows.values("patch")[::-1]:
            for peer in dict.fromkeys(row["peer"] for row in rows if not ours(row)):
                by_batch = []
                for batch in rows.values("batch"):
                    found = rows.where(work=work, batch=batch)
                    theirs, best = found.where(peer=peer).best(), found.where(patch=patch).best()
                    if theirs and best and ratio(theirs, best) > 1:
                        by_batch.append(f"{ratio(theirs, best):.2f} times at batch {batch}")
                if by_batch:
                    times = ", ".join(by_batch)
                    lines.append(f"- **{peer}** is faster than kuat with {patch}x{patch} patches, {work}: {times}.")
    if not lines:
        lines.append("- No peer was faster at anything that was measured.")
    one = {row["peer"]: row for row in rows}
    lossy = [row for row in rows if ours(row) and row.get("psnr_db")]
    for patch, row in sorted({row["patch"]: row for row in lossy}.items()):
        better = [
            f"{other['peer']} ({other['psnr_db']:.1f} dB at {number(other['bytes_per_image'])} bytes)"
            for other in one.values()
            if other.get("code") == "JPEG"
            and other["psnr_db"] > row["psnr_db"]
            and other["bytes_per_image"] <= row["bytes_per_image"]
        ]
        if better:
            lines.append(
                f"- **Quality in no more bytes** than kuat with {patch}x{patch} patches ({row['psnr_db']:.1f} dB at "
                f"{number(row['bytes_per_image'])} bytes): {', '.join(better)}."
            )
    exact = sorted(name for name, row in one.items() if not ours(row) and row["checked"] == "equal")
    if exact:
        lines.append(f"- **Exact pixels**: {', '.join(exact)}. Vector quantisation is lossy, whatever its patches.")
    return "\n".join(lines)


def original(results):
    """The table of the original, with figures of ours beside it."""
    rows = measured(results[0])
    facts = results[0]["provenance"]
    cells = dict.fromkeys((name for name, _ in PUBLISHED), "not measured")
    files = rows.where(peer=FILES, work=F32).best()
    if files:
        cells["ImageFolder"] = f"{number(files['images_per_s'])} (batch {files['batch']})"
    for batch in (64, 512):
        found = rows.where(work=F32, batch=batch)
        best = [(patch, found.where(patch=patch).best()) for patch in found.values("patch")[::-1]]
        if best:
            cells[f"kuat, CPU, batch {batch}"] = ", ".join(
                f"{number(row['images_per_s'])} ({patch}x{patch})" for patch, row in best
            )
    kernels = Rows(row for result in results for row in result["rows"]).where(
        "gpu_kernel", dtype="f32", layout="nchw", chosen=True
    )
    adapters = []
    for adapter in kernels.values("adapter"):
        row = kernels.where(adapter=adapter).best()
        kind = ", software" if is_software(row) else ""
        adapters.append((is_software(row), f"{number(row['images_per_s'])} ({adapter}{kind})"))
    if adapters:
        cells["kuat, GPU"] = ", ".join(text for _, text in sorted(adapters))
    said = ""
    if not adapters:
        said = " No GPU was measured."
    elif all(software for software, _ in adapters):
        said = (
            " Only software adapters were measured, which run on the processor: they show that the GPU path is right, "
            "not how fast a GPU is."
        )
    return (
        "## The original's table\n\n"
        "The proprietary original published these figures for ImageWoof at 224x224, on hardware that it did not name. "
        f"Ours are of {facts['dataset']['name']} ({facts['dataset']['images']:,} images, 224x224), as normalised "
        f"float32 tensors, on {facts['cores']} cores.{said}\n\n"
        + table(
            ["", "published, images/s", "here, images/s"],
            [[name, value if isinstance(value, str) else number(value), cells[name]] for name, value in PUBLISHED],
        )
    )


def held(results):
    """Every bar, met or not."""
    text = ["## Bars", "What the project wants to reach: ratios of medians in one run, and what bounds them."]
    for result in results:
        if len(results) > 1:
            text.append(f"On {result['machine']}:")
        lines = [
            [bar.what, wanted(bar), "-" if bar.measured is None else f"{bar.measured:.2f}", verdict(bar), bar.numbers]
            + [bar.bound]
            for bar in bars(result["rows"])
        ]
        text.append(table(["", "wanted", "measured", "", "of", "bound by"], lines))
    return "\n\n".join(text)


def wanted(bar):
    return "" if bar.wanted is None else f"{'<=' if bar.at_most else '>='} {bar.wanted:g}"


def verdict(bar):
    if bar.measured is None:
        return "not measured"
    return {True: "met", False: "**missed**", None: ""}[bar.met]


def details(result, pictures):
    """Everything measured on a machine."""
    rows = Rows(result["rows"])
    sections = [
        f"## {result['machine']}",
        everyone(rows, pictures),
        cpu(rows, pictures),
        gpu(rows, pictures),
        scale(rows, pictures),
        provenance(result["provenance"]),
    ]
    return "\n\n".join(section for section in sections if section)


def everyone(rows, pictures):
    """All peers, all kinds of work."""
    found = rows.where("peers")
    if not found:
        return ""
    kinds = [(work, batch) for work in (F32, U8) for batch in found.where(work=work).values("batch")]
    lines = []
    for name in dict.fromkeys(row["peer"] for row in found):
        mine = found.where(peer=name)
        speeds = []
        for work, batch in kinds:
            row = next(iter(mine.where(work=work, batch=batch)), {})
            speeds.append(number(row["images_per_s"]) if "images_per_s" in row else "")
        known = [row for row in mine if "images_per_s" in row]
        if known:
            lines.append([name, *speeds, size(known[0]), known[0]["checked"], known[0]["version"]])
        missing = sorted({row["missing"] for row in mine if "missing" in row})
        if missing:
            lines.append([name, *([""] * len(kinds)), "", f"not available: {'; '.join(missing)}", ""])
    header = ["", *(f"{work}, {batch}" for work, batch in kinds), "bytes per image", "checked", "version"]
    text = "### Peers\n\nImages per second by kind of work and size of batch.\n\n" + table(header, lines)
    return f"{text}\n\n{picture(pictures, 'peers-u8', 'Images per second as bytes')}".strip()


def cpu(rows, pictures):
    text = []
    found = rows.where("cpu_decode")
    if found:
        columns = ["patch", "codewords", "indices", "dtype", "layout", "normalized", "batch", "threads", "path"]
        columns += ["images_per_s", "limit", "limit_images_per_s", "ratio"]
        text += [
            "Decoding beside its limit: copying the pixels (memcpy), or storing the same bytes (store).",
            all_of(found, columns),
        ]
    found = rows.where("cpu_paths")
    if found:
        text += [
            "The same by the instructions used, batches of 256, one thread; the best a processor has are chosen:",
            all_of(found, ["path", "patch", "dtype", "layout", "images_per_s", "limit", "limit_images_per_s", "ratio"]),
        ]
    found = rows.where("cpu_layers")
    if found:
        columns = ["indices", "bytes_per_image", "path", "dtype", "layout", "images_per_s"]
        text += [
            "The codec layers, batches of 64, one thread, real photographs and uniformly random indices:",
            all_of(found, [*columns, "limit", "limit_images_per_s", "ratio"]),
        ]
    text += [picture(pictures, "threads", "Images per second over threads")]
    text += [picture(pictures, "codebook", "Images per second over the number of codewords")]
    found = rows.where("cpu_codebook")
    if found:
        text += [all_of(found, ["patch", "dtype", "codewords", "images_per_s", "relative"])]
    found = rows.where("cpu_call")
    if found:
        text += [
            "What a call costs:",
            all_of(found, ["image", "dtype", "batch", "call_us", "per_image_us", "fixed_us"]),
        ]
    return section("### CPU", text)


def gpu(rows, pictures):
    text = []
    found = rows.where("gpu_kernel")
    for place, adapter in enumerate(found.values("adapter"), 1):
        one = found.where(adapter=adapter)
        kind = "a software adapter, on the processor" if is_software(one[0]) else one[0]["device_type"]
        text += [
            f"**{adapter}**, {kind}, driver {one[0]['driver']}. Kernels and a shader that only stores as many bytes:"
        ]
        text += [picture(pictures, f"kernels-{place}", f"Kernels on {adapter}")]
        columns = ["patch", "dtype", "layout", "normalized", "batch", "workgroup"]
        text += [all_of(one, [*columns, "images_per_s", "fill_images_per_s", "ratio"])]
    found = rows.where("gpu_stages")
    if found:
        text += ["From host memory and back, by stage:"]
        text += [all_of(found, ["adapter", "patch", "dtype", "batch", "stage", "images_per_s"])]
    for place, adapter in enumerate(rows.where("gpu_timeline").values("adapter"), 1):
        text += [picture(pictures, f"timeline-{place}", f"Stages over time on {adapter}")]
    found = rows.where("gpu_latency")
    if found:
        text += ["The first batch, step by step:", all_of(found, ["adapter", "step", "ms"])]
    return section("### GPU", text)


def scale(rows, pictures):
    text = [picture(pictures, "open", "Time and memory of opening over the number of samples")]
    found = rows.where("open")
    if found:
        text += [
            "Opening an archive with labels, reading one row and one label of it. What that keeps in memory is mapped "
            "in pieces of 64 kB on Linux, two or three of them:",
            all_of(found, ["samples", "file_bytes", "open_us", "resident_bytes"]),
        ]
    found = rows.where("cold")
    if found:
        text += [
            "Random samples that are not in the page cache (*cached*: that are), by what the system is told before: "
            "nothing; that reading is random, for the whole file; which rows a batch needs, just before it is decoded "
            "or, as kuat's batches do, while the one ahead of it is. Samples lie further apart than the system reads "
            "ahead, so that, as in a file much larger than memory, none comes with another. How much it reads ahead, "
            "and with it how slow it is when told nothing, is a setting of each disk (`read_ahead_kb`).",
            picture(pictures, "cold", "Images per second from disk by what the system is told"),
        ]
        columns = ["patch", "cached", "threads", "batch", "advice", "images_per_s", "read_bytes_per_image"]
        text += [all_of(found, [*columns, "file_bytes"])]
    return section("### Opening and scale", text)


def provenance(facts):
    dataset = facts["dataset"]
    adapters = [
        f"{adapter['name']} ({adapter['api']}, {adapter['kind']}, {adapter['driver_info'] or adapter['driver']})"
        for adapter in facts["adapters"]
    ]
    programs = [
        f"{name} {of['date']}, commit {of['commit']}" + (f": {of['failure']}" if "failure" in of else "")
        for name, of in facts["programs"].items()
    ]
    versions = facts["versions"]
    lines = [
        ["CPU", f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_bytes'] / 2**30:.0f} GiB of memory"],
        ["system", facts["os"]],
        ["adapters", "; ".join(adapters) or "none"],
        ["versions", f"kuat {versions['kuat']}, Rust {versions['rust']}, Python {versions['python']}"],
        ["photographs", described(dataset)],
        ["measured", "; ".join(programs)],
    ]
    return "### Provenance\n\n" + table(["", ""], lines)


def described(dataset):
    return (
        f"{dataset['name']}: {dataset['images']:,} {dataset['format']} files in {dataset['classes']} classes, median "
        f"{dataset['median_width']}x{dataset['median_height']} pixels, {number(dataset['bytes_per_file'])} bytes each"
    )


def method(result):
    workers = next((row["workers"] for row in result["rows"] if "workers" in row), 2)
    return f"""
## How it is measured

- Every peer runs in a process and a virtual environment of its own, with {workers} workers or threads, and makes
  batches of 224x224 photographs in a random order of each epoch: `u8 NHWC`, bytes, interleaved; or `f32 NCHW`, float32
  planes normalised as ImageNet's, in a contiguous torch tensor. Whole epochs are timed, with nothing done to a batch.
  All files are in the system's page cache.
- Before anything is timed an epoch of each row is checked: every image as often as it should come, with its label, in
  another order. *equal*: all pixels are those of the cropped photographs. *equal to numpy's decoding*: those that a
  gather of the archive in numpy gives. *PSNR*: JPEG, against the cropped photographs; each image is also held
  against what its file holds, and must come to 40 dB there, for decoders differ in their rounding.
- The crops are those of Resize(224) and CenterCrop(224); ImageFolder makes them from the original files each time, all
  others store them: as pixels, as JPEG of quality 90 with half the colours, or in kuat's archive, made from the pixels.
- *raw memmap* is what one writes: `raw[ids]`, then torch. *raw memmap, kept arrays* is as fast as we could write it:
  threads that copy into, and convert in, memory that every batch uses again.
- Peers take turns, round after round, and medians count; ratios between rows are medians of the rounds' ratios.
- kuat's bytes per image leave out its codebook, which is stored once. Its codebook was trained on these very pictures.
"""


def measured(result):
    return Rows(row for row in Rows(result["rows"]).where("peers") if "images_per_s" in row)


def size(row):
    once = f" + {row['codebook_bytes'] / 1e6:.1f} MB once" if "codebook_bytes" in row else ""
    return number(row["bytes_per_image"]) + once


def quality(row):
    return f"{row['psnr_db']:.1f} dB" if row.get("psnr_db") else "exact"


def section(title, parts):
    parts = [part for part in parts if part]
    return "\n\n".join([title, *parts]) if parts else ""


def picture(pictures, name, words):
    return f"![{words}]({pictures[name]})" if name in pictures else ""


def all_of(rows, columns):
    """The rows as they are, numbers made readable."""
    names = [column.replace("_", " ") for column in columns]
    text = table(names, [[cell(row.get(key)) for key in columns] for row in rows])
    if len(rows) <= LONG:
        return text
    return f"<details><summary>{len(rows)} rows</summary>\n\n{text}\n\n</details>"


def cell(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and abs(value) < 100:
        return f"{value:.2f}"
    return number(value) if isinstance(value, (int, float)) else str("" if value is None else value)


def number(value):
    return f"{value:,.0f}"


def table(header, lines):
    rule = ["---"] * len(header)
    return "\n".join(
        "| " + " | ".join(str(part).replace("|", "\\|") for part in line) + " |" for line in (header, rule, *lines)
    )
