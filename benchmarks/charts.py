"""``python -m benchmarks.charts DIR``: draw the charts from DIR/report.json into DIR.

To add a chart, write a function that makes a figure of the report, and enter it into `CHARTS`.
"""

import argparse
import json
from functools import partial
from io import BytesIO
from math import log, nan
from pathlib import Path

import matplotlib as mpl
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.limits import COPY, FMA_PEAK
from benchmarks.sweeps import BY_LENGTH, BY_ROWS, NUMBERS
from benchmarks.table import OUT

# Okabe and Ito's colours, which colour-blind people can tell apart.
LINES = {
    "csoftmax": {"color": "#d55e00", "linewidth": 3, "zorder": 4},
    "csoftmax" + OUT: {"color": "#d55e00", "linewidth": 1, "zorder": 3},
    "numpy": {"color": "#0072b2", "marker": "s"},
    "torch": {"color": "#cc79a7", "marker": "o"},
    "onnxruntime": {"color": "#009e73", "marker": "^"},
    "jax": {"color": "#56b4e9", "marker": "D"},
    COPY: {"color": "#555555", "linewidth": 1, "linestyle": "--"},
}
FMA_PEAK_LINE = {"color": "#555555", "linewidth": 1, "linestyle": ":"}

WIDTH = 8    # in inches, as all sizes of figures
SETTINGS = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "figure.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.xmargin": 0.02,
    "axes.grid": True,
    "grid.color": "#e8e8e8",
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "savefig.dpi": 150,
    "savefig.facecolor": "white",
    "svg.hashsalt": "csoftmax",    # any text; without one, the ids in a file differ each time
}
LABEL_SPACING = 12    # points

LEVELS = 16    # of colour, half of them for peers that are ahead
STRONGEST = 8    # the ratio from which on colours get no stronger
PALE = 3.6    # up to here they bear black text


def row_length(dtype, report):
    title = f"softmax, {dtype}: {NUMBERS:,} numbers in rows of one length, or one longer row"
    figure = new_figure(report, 4.6, title)
    points = [
        one for one in report["curves"] if one["regime"] == BY_LENGTH and one["dtype"] == dtype
    ]
    axes = figure.subplots()
    axes.set(xlabel="row length", ylabel="nanoseconds per number")
    ends = draw_curves(axes, points, 1, report["fma_peak_ns"][dtype])
    label_ends(figure, axes, ends)
    return figure


def rows(report):
    figure = new_figure(report, 4.4, "softmax, float32")
    points = [one for one in report["curves"] if one["regime"] == BY_ROWS]
    lengths = sorted({one["shape"][1] for one in points})
    panels = figure.subplots(1, len(lengths), sharey=True)
    panels[0].set_ylabel("nanoseconds per number")
    ends = []
    for axes, length in zip(panels, lengths, strict=True):
        axes.set(title=f"rows of {length}", xlabel="number of rows")
        panel_points = [one for one in points if one["shape"][1] == length]
        ends.append(draw_curves(axes, panel_points, 0, report["fma_peak_ns"]["float32"]))
    for axes, panel_ends in zip(panels, ends, strict=True):    # when the shared limits are final
        label_ends(figure, axes, panel_ends)
    return figure


def ratios(report):
    cells = {
        (cell["case"], cell["operation"], cell["out"]): cell["peer_ratio"]
        for cell in report["ratios"]
    }
    cases = list(dict.fromkeys(case for case, _, _ in cells))
    columns = list(dict.fromkeys((operation, out) for _, operation, out in cells))
    grid = [[nan] * len(columns) for _ in cases]
    title = "time of the fastest peer / time of csoftmax"
    figure = new_figure(report, 2.9 + 0.2 * len(cases), title)
    axes = figure.subplots()
    for (case, *column), ratio in cells.items():
        x, y = columns.index(tuple(column)), cases.index(case)
        grid[y][x] = ratio
        color = "black" if 1 / PALE < ratio < PALE else "white"
        digits = 2 if ratio < 1 else 1
        axes.text(x, y, f"{ratio:.{digits}f}", color=color, ha="center", va="center")
    mesh = axes.imshow(
        grid,
        norm=LogNorm(1 / STRONGEST, STRONGEST),
        cmap=mpl.colormaps["RdBu"].resampled(LEVELS),
        aspect="auto",
        interpolation="none",
    )
    names = [f"{operation}{', out=' if out else ''}" for operation, out in columns]
    axes.set_xticks(range(len(columns)), names, rotation=90)
    axes.set_yticks(range(len(cases)), cases)
    axes.tick_params(length=0, labelsize=9, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    bar = figure.colorbar(mesh, location="bottom", shrink=0.5, aspect=40)
    bar.set_label("over 1 (blue): csoftmax is faster")
    ticks = [1 / STRONGEST, 1 / 4, 1 / 2, 1, 2, 4, STRONGEST]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()
    return figure


CHARTS = {
    "row_length_float32": partial(row_length, "float32"),
    "row_length_float64": partial(row_length, "float64"),
    "rows_float32": rows,
    "ratios": ratios,
}


def new_figure(report, height, title):
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    build, threads = report["csoftmax"]["isa"], report["threads"]
    figure.suptitle(
        f"{title}\n{report['cpu']}, {build} build, {threads} thread{'s' if threads > 1 else ''}",
        x=0.01,
        ha="left",
    )
    return figure


def draw_curves(axes, points, dimension, fma_peak_ns):
    """Times over a dimension of the shape; the end of each line, for its name."""
    ends = {}
    for name, style in LINES.items():
        curve = [
            (one["shape"][dimension], one["ns_per_number"])
            for one in points
            if one["implementation"] == name
        ]
        if curve:
            axes.loglog(*zip(*curve, strict=True), **style)
            ends[name] = curve[-1][1], style["color"]
    axes.axhline(fma_peak_ns, **FMA_PEAK_LINE)
    ends[FMA_PEAK] = fma_peak_ns, FMA_PEAK_LINE["color"]
    axes.yaxis.set_major_formatter("{x:g}")
    return ends


def label_ends(figure, axes, ends):
    """Names beside the ends of the lines, moved apart where they would overlap."""
    figure.draw_without_rendering()    # for the height of the axes
    spacing = LABEL_SPACING * figure.dpi / 72 / axes.bbox.height
    low, high = axes.get_ylim()
    names = sorted(ends, key=lambda name: ends[name])
    heights = [log(ends[name][0] / low) / log(high / low) for name in names]
    for _ in range(100):
        heights[0] = max(heights[0], 0)
        for i in range(len(heights) - 1):
            overlap = max(0, heights[i] + spacing - heights[i + 1])
            heights[i] -= overlap / 2
            heights[i + 1] += overlap / 2
    for name, height in zip(names, heights, strict=True):
        axes.annotate(
            name,
            (1, height),
            xytext=(4, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            color=ends[name][1],
            va="center",
            weight="bold" if name == "csoftmax" else "normal",
        )


def draw(directory):
    report = json.loads((directory / "report.json").read_text())
    with mpl.rc_context(SETTINGS):
        for name, chart in CHARTS.items():
            figure = chart(report)
            figure.savefig(directory / f"{name}.svg", metadata={"Date": None})
            save_png(figure, directory / f"{name}.png")


def save_png(figure, path):
    """With a palette, which makes a file of a third of the size."""
    pixels = BytesIO()
    figure.savefig(pixels, format="png")
    image = Image.open(pixels).convert("RGB").quantize(method=Image.Quantize.MAXCOVERAGE)
    image.save(path, optimize=True)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.charts", description=__doc__)
    parser.add_argument("directory", metavar="DIR", type=Path)
    draw(parser.parse_args().directory)


if __name__ == "__main__":
    main()
