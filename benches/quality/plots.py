"""Pictures of a result."""

from matplotlib.ticker import LogLocator, NullFormatter
from report.plots import OURS, plt, save, thousands

from .images import JPEG, SHARED, WEBP
from .page import codebooks, of

# Colour and style of each codec's line, and of layers' by the order of their codebooks.
RIVALS = {
    JPEG: ("#c2410c", "o-"),
    SHARED: ("#fb923c", "o--"),
    WEBP: ("#475569", "o-"),
    "BC1": ("#0f172a", "D"),
    "plain VQ": ("#a8b3bd", "s"),
}
LAYERS = (OURS, "s-"), ("#4d7c0f", "s--"), ("#7c3aed", "s:")


def draw(result, path):
    """PSNR and SSIM over bytes per image."""
    figure, panels = plt.subplots(1, 2, figsize=(12, 5.4))
    for axes, key, title in zip(panels, ("psnr_db", "ssim"), ("PSNR in dB", "SSIM")):
        for codec, (colour, style) in RIVALS.items():
            line(axes, of(result, codec), key, style, color=colour, label=codec)
        for (colour, style), books in zip(LAYERS, codebooks(result)):
            rows = of(result, "layers", books)
            line(axes, rows, key, style, color=colour, linewidth=2, label=f"kuat, layers; codebooks {books}")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(thousands)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("bytes per image, codebooks not counted (less is better)")
        axes.set_title(title)
    figure.suptitle(f"{result['set']}, {result['size'][0]}x{result['size'][1]}: means of {result['measured']} images")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)
    save(figure, path)


def line(axes, rows, key, style, **how):
    if not rows:
        return
    rows = sorted(rows, key=lambda row: row["bytes_per_image"])
    axes.plot([row["bytes_per_image"] for row in rows], [row[key] for row in rows], style, markersize=4.5, **how)
