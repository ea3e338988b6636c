"""What the figures have in common: colours, bars with intervals, stacked bars, a figure that a notebook shows once."""

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from helpers.evaluation import Rate

# Okabe and Ito, "Color Universal Design" (2008): eight colours that colour-blind readers tell apart; grey is added.
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY_BLUE, PURPLE, YELLOW, BLACK, GREY = "#56B4E9", "#CC79A7", "#F0E442", "#000000", "#999999"
SERIES = (BLUE, ORANGE, GREEN, VERMILLION, SKY_BLUE, PURPLE, YELLOW)

LEGEND = {"loc": "outside lower center", "ncols": 7, "frameon": False, "fontsize": 9}
_NARROW = 0.025  # a segment under this share of the axis is too narrow for its count, which then stands beside it


def sizes(named_rows: Iterable[tuple[str, Sequence]]) -> list[tuple[str, int]]:
    """Names with their numbers of rows. Raises ValueError when there is no name, or one without rows."""
    sizes = [(name, len(rows)) for name, rows in named_rows]
    if not sizes or any(n == 0 for _, n in sizes):
        raise ValueError(f"the figure needs something to show, and rows in each; got (name, rows): {sizes}")
    return sizes


def figure(title: str, width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    """A figure that pyplot has forgotten, so that a notebook shows it once; pyplot makes it, so that a notebook knows how."""
    fig, axes = plt.subplots(1, columns, figsize=(width, height), layout="constrained")
    plt.close(fig)
    fig.suptitle(title)
    for ax in fig.axes:
        ax.spines[["top", "right"]].set_visible(False)
    return fig, axes


def style(index: int) -> dict[str, Any]:
    """Look of the series `index`; hatched when the palette starts again."""
    return {"color": SERIES[index % len(SERIES)], "edgecolor": "white", "hatch": "//" * (index // len(SERIES))}


def bars(ax: Axes, rates: dict[float, Rate], width: float, vertical: bool = True, **look: Any) -> None:
    """A bar with its interval at each place (a key); none for a rate that counts nothing."""
    known = {place: rate for place, rate in rates.items() if rate.of}
    values = [rate.value for rate in known.values()]
    draw, end = (ax.bar, "yerr") if vertical else (ax.barh, "xerr")
    draw(
        list(known),
        values,
        width,
        **{end: whiskers(list(known.values()))},
        error_kw={"capsize": 3, "elinewidth": 1.2, "ecolor": BLACK},
        **look,
    )


def whiskers(rates: list[Rate]) -> list[list[float]]:
    """Lengths of the whiskers below and above each rate, as matplotlib wants them; rounding must not make one negative."""
    return [[max(0.0, r.value - r.interval()[0]) for r in rates], [max(0.0, r.interval()[1] - r.value) for r in rates]]


def stack(ax: Axes, parts: dict[str, list[int]], sizes: list[tuple[str, int]], styles: list[dict[str, Any]], length: float) -> None:
    """Horizontal stacked bars, one a total from the top down; a count too wide for its segment stands above or below it in turn."""
    left, outside = [0.0] * len(sizes), [0] * len(sizes)
    for (name, counts), style in zip(parts.items(), styles, strict=True):
        widths = [count / n for count, (_, n) in zip(counts, sizes, strict=True)]
        ax.barh(range(len(sizes)), widths, 0.56, left=left, label=name, **style)
        for y, (count, width) in enumerate(zip(counts, widths, strict=True)):
            if count:
                dy, align = (0, "center") if width >= _NARROW * length else [(-0.3, "bottom"), (0.3, "top")][outside[y] % 2]
                outside[y] += dy != 0
                ink = "white" if style["color"] == BLUE and dy == 0 else BLACK
                ax.text(left[y] + width / 2, y + dy, str(count), ha="center", va=align, fontsize=8.5, color=ink)
            left[y] += width
    ax.set_yticks(range(len(sizes)), [f"{name}\n({n} rows)" for name, n in sizes])
    ax.set(xlim=(0, length), ylim=(len(sizes) - 0.5, -0.5))
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
