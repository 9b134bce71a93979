"""What the project wants to reach, held against the rows."""

from dataclasses import dataclass
from typing import Optional

from .rows import Rows, ours, ratio

WORKS = {"f32": "f32 NCHW", "u8": "u8 NHWC"}


@dataclass
class Bar:
    """A bar and what was measured: a ratio, or microseconds where less is better."""

    what: str
    # None: a number to know, not to reach.
    wanted: Optional[float]
    measured: Optional[float]
    # The numbers behind it.
    numbers: str = ""
    # What the measured figure cannot get past.
    bound: str = ""
    at_most: bool = False

    @property
    def met(self):
        """Whether it is reached; None if it was not measured, or is none."""
        if self.measured is None or self.wanted is None:
            return None
        return self.measured <= self.wanted if self.at_most else self.measured >= self.wanted


def bars(rows):
    """Every bar, in the project's order, measured or not."""
    rows = Rows(rows)
    return [
        *copying(rows),
        *storing(rows),
        *torch_copying(rows),
        *ffcv(rows),
        *kernels(rows),
        codebook(rows),
        *calls(rows),
    ]


def copying(rows):
    found = rows.where("cpu_decode", dtype="u8", layout="nhwc", indices="real", batch=512, limit="memcpy")
    bound = "random reads of codewords from the shared caches, and the memory's rate of writing"
    return limits(found, "CPU, u8 NHWC, batch 512 / copying the same pixels", 1.0, bound)


def storing(rows):
    normalized = {"layout": "nchw", "normalized": True, "limit": "store"}
    found = rows.where("cpu_decode", dtype="f32", indices="real", batch=512, **normalized)
    bound = "602 kB of floats an image: the memory's rate of writing"
    return limits(found, "CPU, f32 NCHW normalised, batch 512 / storing the same bytes", 0.7, bound)


def limits(found, what, wanted, bound):
    """A bar for each patch and number of threads."""
    found = sorted((row for row in found if row["threads"] in (1, 2)), key=lambda row: (-row["patch"], row["threads"]))
    if not found:
        return [Bar(what, wanted, None, bound=bound)]
    return [
        Bar(f"{what}, {patches(row)}, {threads(row)}", wanted, row["ratio"], rates(row, "limit_images_per_s"), bound)
        for row in found
    ]


def torch_copying(rows):
    """As one writes it, and as fast as it can be written."""
    return [
        *against(rows, "f32", "raw memmap", "raw memmap through torch", 10, "its float output, as above"),
        *against(rows, "f32", "raw memmap, kept arrays", "the same, written for speed", None, ""),
    ]


def ffcv(rows):
    return [
        *against(rows, "f32", "FFCV raw", "FFCV raw", 2, "its float output, as above"),
        *against(rows, "u8", "FFCV raw", "FFCV raw", 4, "its bytes, as above"),
    ]


def against(rows, dtype, peer, name, wanted, bound):
    """A bar for each patch against a peer, at batch 256; without a bar, the number alone."""
    found = rows.where("peers", work=WORKS[dtype], batch=256)
    theirs = found.where(peer=peer).best()
    kuat = Rows(row for row in found if ours(row))
    result = []
    for patch in kuat.values("patch")[::-1] or [None]:
        best = kuat.where(patch=patch).best()
        what = f"CPU into a torch batch, {WORKS[dtype]} / {name}, batch 256"
        measured = ratio(best, theirs)
        numbers = f"{rate(best)} / {rate(theirs)}" if measured else ""
        result.append(Bar(what + (f", {patch}x{patch} patches" if patch else ""), wanted, measured, numbers, bound))
    return result if wanted or any(bar.measured for bar in result) else []


def kernels(rows):
    """lavapipe's, and those of real GPUs."""
    result = []
    kinds = {"u8 NHWC": {"dtype": "u8", "layout": "nhwc"}, "f32 NCHW": {"dtype": "f32", "layout": "nchw"}}
    for kind, (name, wanted) in zip(kinds, (("u8 NHWC", 0.85), ("f32 NCHW normalised", 0.55))):
        found = rows.where("gpu_kernel", **kinds[kind])
        found = Rows(row for row in found if kind == "u8 NHWC" or row["normalized"])
        software = Rows(row for row in found if lavapipe(row))
        result += by_patch(software, f"lavapipe's kernel, {name} / fill shader", wanted, "output; patches gather")
        for adapter in Rows(row for row in found if not is_software(row)).values("adapter"):
            bound = "the device's rate of writing"
            result += by_patch(found.where(adapter=adapter), f"{adapter}, {name} / fill shader", 0.9, bound)
    return result


def by_patch(found, what, wanted, bound):
    if not found:
        return [Bar(what, wanted, None, bound=bound)]
    result = []
    for patch in found.values("patch")[::-1]:
        # With workgroups of the size that kuat takes.
        mine = found.where(patch=patch, chosen=True)
        if not mine:
            continue
        row = mine.where(batch=max(mine.values("batch"))).best("ratio")
        name = f"{what}, {patches(row)}, batch {row['batch']}"
        result.append(Bar(name, wanted, row["ratio"], rates(row, "fill_images_per_s"), bound))
    return result


def codebook(rows):
    found = rows.where("cpu_codebook", codewords=1 << 25)
    row = min(found, key=lambda row: row["relative"], default=None)
    what = "CPU, codebook of 2^25 entries / of 65,536, random indices"
    bound = "a miss of every cache for each codeword"
    if row is None:
        return Bar(what, 0.15, None, bound=bound)
    return Bar(f"{what}, {row['dtype']}, {patches(row)}", 0.15, row["relative"], rate(row), bound)


def calls(rows):
    what, bound = "CPU, fixed cost of a call, microseconds", "argument checks, a table's look-up, one call of a thread"
    found = rows.where("cpu_call", batch=1)
    if not found:
        return [Bar(what, 5, None, bound=bound, at_most=True)]
    return [
        Bar(
            f"{what}, {row['image']} {row['dtype']}",
            5,
            row["fixed_us"],
            f"{row['call_us']:.1f} µs a call, {row['per_image_us']:.1f} µs an image inside a batch",
            bound,
            at_most=True,
        )
        for row in found
    ]


def patches(row):
    return f"{row['patch']}x{row['patch']} patches"


def threads(row):
    return "1 thread" if row["threads"] == 1 else f"{row['threads']} threads"


def rate(row):
    return f"{row['images_per_s']:,.0f}" if row else "-"


def rates(row, limit):
    return f"{row['images_per_s']:,.0f} / {row[limit]:,.0f} images/s" if limit in row else rate(row)


def is_software(row):
    return row["device_type"].lower() in ("cpu", "software")


def lavapipe(row):
    """Mesa's Vulkan on the processor; its OpenGL has the same name."""
    return is_software(row) and "llvmpipe" in row["adapter"] and "gl" not in row["adapter"].lower().split()
