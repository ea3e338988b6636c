"""Figures: one function per figure, from reports or data to a matplotlib Figure whose title is the question that it answers.

Every rate that is measured on rows has its 95% Wilson interval. A notebook shows a figure that is the last line of its cell.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from helpers.evaluation import LOWER_IS_BETTER, OUTCOMES, FourNumberReport, Rate
from helpers.examples import CALL_KINDS, Example
from helpers.negatives import KINDS, RECOMMENDED_SHARE, no_tool_share, share_table
from helpers.tools import NO_TOOL

# Okabe and Ito, "Color Universal Design" (2008): eight colours that colour-blind readers tell apart; grey is added.
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY_BLUE, PURPLE, YELLOW, BLACK, GREY = "#56B4E9", "#CC79A7", "#F0E442", "#000000", "#999999"
SERIES = (BLUE, ORANGE, GREEN, VERMILLION, SKY_BLUE, PURPLE, YELLOW)
OUTCOME_COLOURS = dict(zip(OUTCOMES, (BLUE, SKY_BLUE, YELLOW, ORANGE, VERMILLION, PURPLE, GREY), strict=True))

_RATE_LABELS = {
    "valid_tool_call_rate": "valid\ntool call\n(of all rows)",
    "tool_name_accuracy": "tool name\naccuracy\n(of all rows)",
    "argument_match_accuracy": "argument match\naccuracy\n(of calls emitted)",
    "false_tool_call_rate": "false\ntool call\n(of all rows)",
    "false_calls_on_no_tool": "false calls\non no_tool\n(of no_tool rows)",
    "missed_calls": "missed\ncalls\n(of call rows)",
}
_LEGEND = {"loc": "outside lower center", "ncols": 7, "frameon": False, "fontsize": 9}
_NARROW = 0.025  # a segment under this share of the axis is too narrow for its count, which then stands beside it


def four_numbers(reports: Sequence[FourNumberReport]) -> Figure:
    """The four numbers with `false_calls_on_no_tool` and `missed_calls`: grouped bars, one a router, higher-is-better apart from lower.

    A rate that counts nothing (argument match of a router that never calls) has no bar but the words "0 of 0".
    Raises ValueError when there is no report, or one without rows.
    """
    _sizes((report.name, report.rows) for report in reports)
    title = "How often is each router right, and how often does it act wrongly? (whiskers: 95% interval)"
    fig, axes = _figure(title, max(10.0, 4 + 1.6 * len(reports)), 4.8, columns=2)
    width = 0.84 / len(reports)
    for ax, lower in zip(axes, (False, True), strict=True):
        names = [name for name in _RATE_LABELS if (name in LOWER_IS_BETTER) == lower]
        for index, report in enumerate(reports):
            offset = (index - (len(reports) - 1) / 2) * width
            rates = {group + offset: report.rates[name] for group, name in enumerate(names)}
            _bars(ax, rates, width * 0.92, label=report.name, **_style(index))
            for x, rate in rates.items():
                text, y = (f"{rate.value:.2f}", rate.interval()[1] + 0.015) if rate.of else ("0 of 0", 0.015)
                ax.text(x, y, text, ha="center", va="bottom", fontsize=8, rotation=0 if rate.of else 90)
        ax.set_xticks(range(len(names)), [_RATE_LABELS[name] for name in names])
        ax.set(ylim=(0, 1.1), yticks=[0, 0.2, 0.4, 0.6, 0.8, 1.0], ylabel="share of the rows named below")
        ax.set_title("lower is better ↓" if lower else "higher is better ↑", fontsize=10)
    axes[1].set_facecolor("#f3f3f3")
    fig.legend(*axes[0].get_legend_handles_labels(), **_LEGEND)
    return fig


def outcomes(reports: Sequence[FourNumberReport]) -> Figure:
    """How each router's rows ended: right in blues, silent errors in warning colours, invalid in grey, counts written in.

    Shares of one whole, so without intervals: those are in `four_numbers`. Raises ValueError when there is no report, or one without rows.
    """
    sizes = _sizes((report.name, report.rows) for report in reports)
    fig, ax = _figure("How does each row end: right, wrong in silence, or invalid in plain sight?", 9.5, 1.9 + 0.62 * len(reports))
    parts = {outcome: [report.outcomes[outcome] for report in reports] for outcome in OUTCOMES}
    _stack(ax, parts, sizes, [{"color": OUTCOME_COLOURS[outcome]} for outcome in parts], length=1.0)
    ax.set_xlabel("share of rows (counts in the bars)")
    fig.legend(*ax.get_legend_handles_labels(), **_LEGEND)
    return fig


def confusion(report: FourNumberReport) -> Figure:
    """Gold tool by decided tool, `no_tool` and `invalid` included; each cell has its count, its share of the row and the interval.

    Off the diagonal, a decision that a row's `accept` allows is right all the same. Raises ValueError on a report without rows.
    """
    _sizes([(report.name, report.rows)])
    counts = report.confusion()
    gold = sorted({row for row, _ in counts}, key=lambda name: (name == NO_TOOL, name))
    decided = [*sorted({name for cell in counts for name in cell} - {NO_TOOL, "invalid"}), NO_TOOL, "invalid"]
    totals = {row: sum(n for (name, _), n in counts.items() if name == row) for row in gold}
    rates = [[Rate(counts.get((row, column), 0), totals[row]) for column in decided] for row in gold]
    title = f"Which tool does {report.name} take for which?\n(rows, share of the gold tool's rows, 95% interval; framed: right tool)"
    fig, ax = _figure(title, 2.2 + 1.45 * len(decided), 1.9 + 0.8 * len(gold))
    ax.imshow([[rate.value for rate in line] for line in rates], cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for y, line in enumerate(rates):
        for x, rate in enumerate(line):
            low, high = rate.interval()
            text = f"{rate.hits}\n{rate.value:.0%} [{low:.0%}, {high:.0%}]"
            ax.text(x, y, text, ha="center", va="center", fontsize=8.5, color="white" if rate.value > 0.6 else BLACK)
            if gold[y] == decided[x]:
                ax.add_patch(plt.Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, fill=False, edgecolor=ORANGE, linewidth=2))
    ax.set_yticks(range(len(gold)), [f"{name}\n({n} rows)" for name, n in totals.items()])
    ax.set(xlabel="decided tool", ylabel="gold tool", xticks=range(len(decided)), xticklabels=decided)
    return fig


def loss(history: Sequence[tuple[int, float]], rows_per_step: int | None = None) -> Figure:
    """Training loss (nats per completion token) by optimiser step; with `rows_per_step`, rows seen along the top.

    `history` is (step, loss) in order of step. Raises ValueError when it is empty or holds a loss that is no finite number.
    """
    if not history:
        raise ValueError("the loss curve needs at least one (step, loss) pair; got none")
    steps, losses = zip(*history, strict=True)
    if broken := [pair for pair in history if not math.isfinite(pair[1])]:
        raise ValueError(f"the loss at step {broken[0][0]} is {broken[0][1]}: the training diverged there, lower the learning rate")
    fig, ax = _figure("Does the training loss fall, and has it levelled off?", 7.5, 4.0)
    ax.plot(steps, losses, color=BLUE, marker="o", markersize=3)
    ax.annotate(f"{losses[-1]:.3f}", (steps[-1], losses[-1]), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=9)
    ax.set(xlabel="optimiser step", ylabel="training loss (nats per completion token)", ylim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if rows_per_step is not None:
        top = ax.secondary_xaxis("top", functions=(lambda step: step * rows_per_step, lambda rows: rows / rows_per_step))
        top.set_xlabel(f"rows seen ({rows_per_step} a step)")
    return fig


def shares(splits: Mapping[str, Sequence[Example]]) -> Figure:
    """Share of `no_tool` rows in each split, stacked by kind of negative, with the lesson's band for training sets shaded.

    What a file holds is counted, not estimated, so there is no interval. Raises ValueError when there is no split, or an empty one.
    """
    sizes = _sizes(splits.items())
    tables = [share_table(rows) for rows in splits.values()]
    kinds = list(dict.fromkeys(kind for table in tables for kind in table))[1:]  # the first entry counts the calls
    (low, high), found = RECOMMENDED_SHARE, [no_tool_share(rows) for rows in splits.values()]
    length = min(1.15, max(high, *found) * 1.3)
    fig, ax = _figure("How much of each split is no_tool, and of which kinds?", 9.5, 2.2 + 0.62 * len(splits))
    parts = {kind.replace("_", " "): [table.get(kind, 0) for table in tables] for kind in kinds}
    _stack(ax, parts, sizes, [_style(index) for index in range(len(kinds))], length)
    for y, share in enumerate(found):
        ax.text(share + length * 0.01, y, f"{share:.1%}", va="center", fontweight="bold")
    ax.axvspan(low, high, color=GREY, alpha=0.3, linewidth=0, zorder=0)
    band = f"the lesson's band for training: {low:.0%}–{high:.0%}"
    ax.text((low + high) / 2, len(splits) - 0.42, band, ha="center", va="top", fontsize=9)
    ax.set(ylim=(len(splits) - 0.2, -0.6), xlabel="share of all rows in the split (counts in the bars)")
    fig.legend(*ax.get_legend_handles_labels(), **_LEGEND)
    return fig


def per_kind(report: FourNumberReport) -> Figure:
    """Exact accuracy for each kind of request, calls above negatives, with intervals and counts. Raises ValueError on no rows."""
    _sizes([(report.name, report.rows)])
    fig, ax = _figure(f"Which kinds of request does {report.name} get right?", 8.0, 2.0 + 0.36 * (len(report.per_kind()) + 1))
    y, ticks = 0.0, {}
    for label, colour, is_call in (("gold is a call", BLUE, True), ("gold is no_tool", ORANGE, False)):
        kinds = FourNumberReport(tuple(row for row in report.rows if row.example.is_call == is_call)).per_kind()
        group = {}
        for kind in dict.fromkeys(name for name in (*CALL_KINDS, *KINDS, *kinds) if name in kinds):
            rate = group[y] = kinds[kind].exact_accuracy
            ax.text(rate.interval()[1] + 0.012, y, f"{rate.hits}/{rate.of}", va="center", fontsize=9)
            ticks[y] = kind.replace("_", " ")
            y += 1
        if group:
            _bars(ax, group, 0.72, vertical=False, label=label, color=colour)
            y += 0.6
    ax.set_yticks(list(ticks), ticks.values())
    ax.set(xlim=(0, 1.12), xticks=[0, 0.2, 0.4, 0.6, 0.8, 1.0], xlabel="exact accuracy (share of the kind's rows; whiskers: 95% interval)")
    ax.invert_yaxis()
    fig.legend(*ax.get_legend_handles_labels(), **_LEGEND)
    return fig


def _sizes(named_rows: Iterable[tuple[str, Sequence]]) -> list[tuple[str, int]]:
    """Names with their numbers of rows. Raises ValueError when there is no name, or one without rows."""
    sizes = [(name, len(rows)) for name, rows in named_rows]
    if not sizes or any(n == 0 for _, n in sizes):
        raise ValueError(f"the figure needs something to show, and rows in each; got (name, rows): {sizes}")
    return sizes


def _figure(title: str, width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    """A figure that pyplot has forgotten, so that a notebook shows it once; pyplot makes it, so that a notebook knows how."""
    fig, axes = plt.subplots(1, columns, figsize=(width, height), layout="constrained")
    plt.close(fig)
    fig.suptitle(title)
    for ax in fig.axes:
        ax.spines[["top", "right"]].set_visible(False)
    return fig, axes


def _style(index: int) -> dict[str, Any]:
    """Look of the series `index`; hatched when the palette starts again."""
    return {"color": SERIES[index % len(SERIES)], "edgecolor": "white", "hatch": "//" * (index // len(SERIES))}


def _bars(ax: Axes, rates: dict[float, Rate], width: float, vertical: bool = True, **look: Any) -> None:
    """A bar with its interval at each place (a key); none for a rate that counts nothing."""
    known = {place: rate for place, rate in rates.items() if rate.of}
    values = [rate.value for rate in known.values()]
    ends = [[max(0.0, r.value - r.interval()[0]) for r in known.values()], [max(0.0, r.interval()[1] - r.value) for r in known.values()]]
    draw, end = (ax.bar, "yerr") if vertical else (ax.barh, "xerr")
    draw(list(known), values, width, **{end: ends}, error_kw={"capsize": 3, "elinewidth": 1.2, "ecolor": BLACK}, **look)


def _stack(ax: Axes, parts: dict[str, list[int]], sizes: list[tuple[str, int]], styles: list[dict[str, Any]], length: float) -> None:
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
