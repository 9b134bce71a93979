"""Pictures of a result."""

from matplotlib.ticker import LogLocator, NullFormatter
from report.plots import OURS, plt, save, thousands

COLOURS = {2: OURS, 4: "#4d7c0f", 8: "#7c3aed"}
RIVALS = {"JPEG 4:2:0": ("#c2410c", "o-"), "WebP": ("#475569", "o-"), "BC1": ("#0f172a", "D")}


def draw(result, path):
    """PSNR and SSIM over bytes per image."""
    figure, panels = plt.subplots(1, 2, figsize=(12, 5.4))
    for axes, key, title in zip(panels, ("psnr_db", "ssim"), ("PSNR in dB", "SSIM")):
        for codec, (colour, style) in RIVALS.items():
            line(axes, [row for row in result["rows"] if row["codec"] == codec], key, style, color=colour, label=codec)
        for patch, colour in COLOURS.items():
            ours = [row for row in result["rows"] if row.get("patch") == patch]
            other = [row for row in ours if row["trained_on"] == "other images"]
            label = f"kuat {patch}x{patch}, index rows; codebook of other images"
            line(axes, other, key, "s-", color=colour, label=label)
            for row in other:
                size = f"{row['codewords'] / 1024:g}k" if row["codewords"] >= 1024 else row["codewords"]
                place = {"xy": (row["bytes_per_image"], row[key]), "textcoords": "offset points"}
                axes.annotate(size, xytext=(5, -11), fontsize=8, color=colour, **place)
            same = [{**row, "bytes_per_image": row["file_bytes_per_image"]} for row in ours if row not in other]
            label = f"kuat {patch}x{patch}, file / {result['images']}; codebook of the same images"
            line(axes, same, key, "s:", color=colour, markerfacecolor="white", linewidth=1, label=label)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(thousands)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("bytes per image (less is better)")
        axes.set_title(title)
    width, height = result["size"]
    figure.suptitle(f"{result['set']}, {width}x{height}: {result['measured']} of {result['images']} images")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)
    save(figure, path)


def line(axes, rows, key, style, **how):
    if not rows:
        return
    rows = sorted(rows, key=lambda row: row["bytes_per_image"])
    axes.plot([row["bytes_per_image"] for row in rows], [row[key] for row in rows], style, markersize=4.5, **how)
