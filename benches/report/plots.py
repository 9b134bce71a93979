"""Pictures of a result. Each function takes rows and a path, and draws if there is something to draw."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter  # noqa: E402

from .rows import Rows, ours, shown  # noqa: E402

OURS, OTHERS, LIMIT = "#0b6e99", "#a8b3bd", "#c2410c"
# Two of each at most stand beside each other.
LINES = {(4, "u8"): OURS, (2, "u8"): "#5fb0cf", (4, "f32"): "#4d7c0f", (2, "f32"): "#a3c56b"}
MORE = ["#7c3aed", "#b45309", "#475569"]
# White stays white on a dark page.
plt.rcParams.update(
    {
        "figure.facecolor": "white",
        "axes.facecolor": "white",
        "savefig.facecolor": "white",
        "savefig.dpi": 160,
        "font.size": 11,
        "axes.titlesize": 12,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e2e8f0",
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
        "figure.constrained_layout.w_pad": 0.1,
    }
)


def peers(rows, path, work, batch):
    """A bar per peer, kuat's in colour."""
    found = rows.where("peers", work=work, batch=batch)
    found = sorted((row for row in found if "images_per_s" in row), key=lambda row: row["images_per_s"])
    if not found:
        return None
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(found) + 1.3))
    speeds = [row["images_per_s"] for row in found]
    bars = axes.barh([row["peer"] for row in found], speeds, color=[OURS if ours(row) else OTHERS for row in found])
    for bar, row in zip(bars, found):
        size, quality = (
            f"{row['bytes_per_image'] / 1e3:.0f} kB",
            f"{row['psnr_db']:.0f} dB" if row.get("psnr_db") else "exact",
        )
        place = {"xy": (bar.get_width(), bar.get_y() + bar.get_height() / 2), "textcoords": "offset points"}
        speed = axes.annotate(f"{row['images_per_s']:,.0f}", xytext=(4, 0), va="center", **place)
        axes.annotate(
            f"{size}, {quality}", xy=(1, 0.5), xycoords=speed, xytext=(8, 0), textcoords="offset points",
            va="center", fontsize=9, color="#64748b",
        )  # fmt: skip
    for label, row in zip(axes.get_yticklabels(), found):
        label.set_fontweight("bold" if ours(row) else "normal")
    axes.set_xlim(0, max(speeds) * 1.3)
    axes.margins(y=0.02)
    axes.xaxis.set_major_formatter(thousands)
    axes.set_xlabel("images per second (more is better); in grey, size and quality of a stored image")
    axes.set_title(f"Batches of {batch} images of 224x224, {NAMES[work]}, {found[0]['workers']} workers")
    axes.grid(axis="y", visible=False)
    return save(figure, path)


NAMES = {"f32 NCHW": "normalised float32 tensors", "u8 NHWC": "bytes"}


def threads(rows, path):
    """Images per second over threads, and the limits."""
    found = rows.where("cpu_threads")
    if not found:
        return None
    kinds = found.values("dtype")[::-1]
    figure, panels = plt.subplots(1, len(kinds), figsize=(4.6 * len(kinds), 3.6), squeeze=False)
    for axes, dtype in zip(panels[0], kinds):
        for patch in found.values("patch")[::-1]:
            line = sorted(found.where(dtype=dtype, patch=patch), key=lambda row: row["threads"])
            if not line:
                continue
            x = [row["threads"] for row in line]
            color = LINES.get((patch, dtype), MORE[0])
            axes.plot(x, [row["images_per_s"] for row in line], "o-", color=color, label=f"{patch}x{patch} patches")
        limits = {row["threads"]: row["limit_images_per_s"] for row in found.where(dtype=dtype)}
        axes.plot(sorted(limits), [limits[x] for x in sorted(limits)], "--", color=LIMIT, label="limit")
        axes.set_xticks(found.values("threads"))
        axes.set_ylim(0)
        axes.yaxis.set_major_formatter(thousands)
        axes.set_xlabel("threads")
        axes.set_ylabel("images per second")
        axes.set_title(f"{dtype}, limit: {'copying the pixels' if dtype == 'u8' else 'storing the bytes'}")
        axes.legend()
    return save(figure, path)


def codebook(rows, path):
    """Images per second over the number of codewords."""
    found = rows.where("cpu_codebook")
    if not found:
        return None
    figure, axes = plt.subplots(figsize=(8, 4))
    for dtype in found.values("dtype")[::-1]:
        for patch in found.values("patch")[::-1]:
            line = sorted(found.where(dtype=dtype, patch=patch), key=lambda row: row["codewords"])
            if line:
                x, y = [row["codewords"] for row in line], [row["images_per_s"] for row in line]
                color = LINES.get((patch, dtype), MORE[0])
                axes.plot(x, y, "o-", ms=4, color=color, label=f"{dtype}, {patch}x{patch} patches")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(thousands)
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: thousands(value) if leading(value) in "25" else ""))
    axes.set_xlabel("codewords (uniformly random indices)")
    axes.set_ylabel("images per second")
    axes.legend()
    return save(figure, path)


def opening(rows, path):
    """Time and memory over the number of samples."""
    found = sorted(rows.where("open"), key=lambda row: row["samples"])
    if not found:
        return None
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4))
    x = [row["samples"] for row in found]
    panels[0].plot(x, [row["open_us"] for row in found], "o-", color=OURS)
    panels[0].set_ylabel("microseconds to open")
    panels[1].plot(x, [row["resident_bytes"] / 1e6 for row in found], "o-", color=OURS)
    panels[1].set_ylabel("megabytes in memory")
    for axes in panels:
        axes.set_xscale("log")
        axes.set_ylim(0, axes.get_ylim()[1] * 1.2)
        axes.set_xlabel("samples in the archive")
    return save(figure, path)


def cold(rows, path):
    """Images per second from disk, by what the system is told of it."""
    found = rows.where("cold", cached=False)
    if not found:
        return None
    found = found.where(threads=max(found.values("threads")))
    advices = list(dict.fromkeys(row["advice"] for row in found))
    figure, axes = plt.subplots(figsize=(9, 0.7 * len(advices) + 1.3))
    for number, patch in enumerate(found.values("patch")[::-1]):
        line = {row["advice"]: row for row in found.where(patch=patch)}
        places = [place + 0.36 * number - 0.18 for place, advice in enumerate(advices) if advice in line]
        known = [line[advice] for advice in advices if advice in line]
        speeds = [row["images_per_s"] for row in known]
        color = LINES.get((patch, "u8"), MORE[0])
        bars = axes.barh(places, speeds, 0.34, color=color, label=f"{patch}x{patch} patches")
        read = [f"{row['images_per_s']:,.0f} ({row['read_bytes_per_image'] / 1e3:,.0f} kB read)" for row in known]
        axes.bar_label(bars, read, padding=4, fontsize=9)
    axes.set_yticks(range(len(advices)), advices)
    axes.invert_yaxis()
    axes.set_xlim(0, max(row["images_per_s"] for row in found) * 1.25)
    axes.xaxis.set_major_formatter(thousands)
    axes.set_xlabel(f"images per second from disk, {found[0]['threads']} threads, batches of {found[0]['batch']}")
    axes.grid(axis="y", visible=False)
    axes.legend(loc="upper right")
    return save(figure, path)


def kernels(rows, path, adapter):
    """Kernels beside the fill shader of the same bytes, both with workgroups of the size that kuat takes."""
    found = rows.where("gpu_kernel", adapter=adapter, chosen=True)
    if not found:
        return None
    found = found.where(batch=max(found.values("batch")))
    found = sorted(found, key=lambda row: (row["dtype"], row["layout"], row["normalized"], row["patch"]), reverse=True)
    names = [
        f"{row['dtype']} {row['layout']}{' normalised' if row['normalized'] else ''}, {row['patch']}x{row['patch']}"
        for row in found
    ]
    figure, axes = plt.subplots(figsize=(9, 0.6 * len(found) + 1.5))
    places = range(len(found))
    fills = [row["fill_images_per_s"] for row in found]
    axes.barh([place + 0.2 for place in places], fills, 0.36, color=OTHERS, label="fill shader, the same bytes")
    speeds = [row["images_per_s"] for row in found]
    bars = axes.barh([place - 0.2 for place in places], speeds, 0.36, color=OURS, label="kernel")
    axes.bar_label(bars, [f"{row['images_per_s']:,.0f} ({row['ratio']:.2f})" for row in found], padding=4)
    axes.set_yticks(places, names)
    axes.set_xlim(0, max(fills + speeds) * 1.2)
    axes.xaxis.set_major_formatter(thousands)
    axes.set_xlabel("images per second")
    axes.set_title(adapter)
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower right", ncols=2)
    return save(figure, path)


def timeline(rows, path, adapter):
    """What each stage did when, batch by batch."""
    found = rows.where("gpu_timeline", adapter=adapter)
    if not found:
        return None
    # One case is enough to see what overlaps.
    first = found[0]
    found = found.where(patch=first["patch"], dtype=first["dtype"])
    stages = list(dict.fromkeys(row["stage"] for row in sorted(found, key=lambda row: row["start_ms"])))
    figure, axes = plt.subplots(figsize=(9, 0.6 * len(stages) + 1.5))
    long = max(row["end_ms"] for row in found)
    for row in found:
        width = row["end_ms"] - row["start_ms"]
        color = (OURS, "#8cc5dc")[row["batch_number"] % 2]
        place = stages.index(row["stage"])
        axes.barh(place, width, 0.6, left=row["start_ms"], color=color, edgecolor="white", linewidth=0.5)
        if width > long / 60:
            at = {"ha": "center", "va": "center", "fontsize": 9, "color": ("white", "black")[row["batch_number"] % 2]}
            axes.text(row["start_ms"] + width / 2, place, row["batch_number"], **at)
    axes.set_yticks(range(len(stages)), stages)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds (numbers: which batch)")
    axes.set_title(f"{adapter}: {first['dtype']}, {first['patch']}x{first['patch']} patches")
    axes.grid(axis="y", visible=False)
    return save(figure, path)


@FuncFormatter
def thousands(value, _=None):
    return f"{value / 1e6:g} million" if value >= 1e6 else f"{value:,.0f}"


def leading(value):
    return f"{value:e}"[0]


def save(figure, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)
    return path


def draw(result, folder):
    """Every picture that a result has rows for: {name: address}."""
    rows = Rows(result["rows"])
    pictures = {
        "peers": peers(shown(rows), folder / "peers.png", "f32 NCHW", 256),
        "peers-u8": peers(shown(rows), folder / "peers-u8.png", "u8 NHWC", 256),
        "threads": threads(rows, folder / "threads.png"),
        "codebook": codebook(rows, folder / "codebook.png"),
        "open": opening(rows, folder / "open.png"),
        "cold": cold(rows, folder / "cold.png"),
    }
    for name, table, plot in (("kernels", "gpu_kernel", kernels), ("timeline", "gpu_timeline", timeline)):
        for number, adapter in enumerate(rows.where(table).values("adapter"), 1):
            key = f"{name}-{number}"
            pictures[key] = plot(rows, folder / f"{key}.png", adapter)
    return {name: path.as_posix() for name, path in pictures.items() if path}
