"""Figures of rows and of training on them: shares of negatives, what an audit found, the loss curve."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from helpers.audits import SEVERITY, AuditReport
from helpers.examples import Example
from helpers.negatives import RECOMMENDED_SHARE, no_tool_share, share_table
from helpers.plots.style import BLUE, GREY, LEGEND, SKY_BLUE, VERMILLION, figure, sizes, stack, style


def shares(splits: Mapping[str, Sequence[Example]]) -> Figure:
    """Share of `no_tool` rows in each split, stacked by kind of negative, with the lesson's band for training sets shaded.

    What a file holds is counted, not estimated, so there is no interval. Raises ValueError when there is no split, or an empty one.
    """
    named = sizes(splits.items())
    tables = [share_table(rows) for rows in splits.values()]
    kinds = list(dict.fromkeys(kind for table in tables for kind in table))[1:]  # the first entry counts the calls
    (low, high), found = RECOMMENDED_SHARE, [no_tool_share(rows) for rows in splits.values()]
    length = min(1.15, max(high, *found) * 1.3)
    fig, ax = figure("How much of each split is no_tool, and of which kinds?", 9.5, 2.2 + 0.62 * len(splits))
    parts = {kind.replace("_", " "): [table.get(kind, 0) for table in tables] for kind in kinds}
    stack(ax, parts, named, [style(index) for index in range(len(kinds))], length)
    for y, share in enumerate(found):
        ax.text(share + length * 0.01, y, f"{share:.1%}", va="center", fontweight="bold")
    ax.axvspan(low, high, color=GREY, alpha=0.3, linewidth=0, zorder=0)
    band = f"the lesson's band for training: {low:.0%}–{high:.0%}"
    ax.text((low + high) / 2, len(splits) - 0.42, band, ha="center", va="top", fontsize=9)
    ax.set(ylim=(len(splits) - 0.2, -0.6), xlabel="share of all rows in the split (counts in the bars)")
    fig.legend(*ax.get_legend_handles_labels(), **LEGEND)
    return fig


def audit(report: AuditReport) -> Figure:
    """Findings of each kind, errors above warnings, with their numbers. They are counted, not estimated, so there is no interval."""
    counts = report.counts()
    fig, ax = figure("What does the audit find in the data, and is any of it an error?", 8.5, 1.6 + 0.32 * len(counts))
    for severity, colour in (("error", VERMILLION), ("warning", SKY_BLUE)):
        found = {y: n for y, (kind, n) in enumerate(counts.items()) if SEVERITY[kind] == severity}
        ax.barh(list(found), list(found.values()), 0.72, label=severity, color=colour)
    most = max(1, *counts.values())
    for y, n in enumerate(counts.values()):
        ax.text(n + 0.01 * most, y, f"{n:,}", va="center", fontsize=9)
    ax.set_yticks(range(len(counts)), list(counts))
    ax.set(xlim=(0, 1.12 * most), xlabel="findings (number)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.invert_yaxis()
    fig.legend(*ax.get_legend_handles_labels(), **LEGEND)
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
    fig, ax = figure("Does the training loss fall, and has it levelled off?", 7.5, 4.0)
    ax.plot(steps, losses, color=BLUE, marker="o", markersize=3)
    ax.annotate(f"{losses[-1]:.3f}", (steps[-1], losses[-1]), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=9)
    ax.set(xlabel="optimiser step", ylabel="training loss (nats per completion token)", ylim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if rows_per_step is not None:
        top = ax.secondary_xaxis("top", functions=(lambda step: step * rows_per_step, lambda rows: rows / rows_per_step))
        top.set_xlabel(f"rows seen ({rows_per_step} a step)")
    return fig
