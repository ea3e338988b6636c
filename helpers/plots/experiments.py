"""Figures of experiments: what negatives in training do to false and to missed calls, and how time grows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter, StrMethodFormatter

from helpers.evaluation import Rate
from helpers.negatives import KINDS, RECOMMENDED_SHARE
from helpers.plots.style import BLACK, BLUE, GREEN, GREY, LEGEND, ORANGE, VERMILLION, bars, figure, whiskers


def share_sweep(runs: Sequence[Mapping[str, Any]]) -> Figure:
    """False calls against missed calls as the share of negatives in training grows, and both against that share.

    `runs` are rows of `python -m helpers sweep`. Large points pool the seeds, small dots are single seeds. The seeds are scored on
    the same test rows, so the intervals, which count each as a row of its own, are somewhat too narrow for other requests.
    Raises ValueError when there is no run of the share experiment, or when runs differ in base or size.
    """
    kept = _comparable([run for run in runs if run["experiment"] == "share"], "the share experiment")
    by_share = {share: [run for run in kept if run["share"] == share] for share in sorted({run["share"] for run in kept})}
    false, missed = (
        {share: _pooled((run["rates"][name]["hits"], run["rates"][name]["of"]) for run in of_share) for share, of_share in by_share.items()}
        for name in ("false_calls_on_no_tool", "missed_calls")
    )
    title = "How many negatives are enough: what do more of them save in false calls, and cost in missed ones?"
    fig, (plane, by) = figure(title, 11.5, 4.8, columns=2)
    low, high = RECOMMENDED_SHARE
    plane.plot([rate.value for rate in missed.values()], [rate.value for rate in false.values()], color=GREY, zorder=1)
    for label, inside, colour in ((f"share within {low:.0%}–{high:.0%}", True, GREEN), ("share outside it", False, BLACK)):
        shares = [share for share in by_share if (low <= share <= high) == inside]
        _points(plane, [missed[share] for share in shares], [false[share] for share in shares], colour, label)
    values = [[run["rates"][name]["value"] for run in kept] for name in ("missed_calls", "false_calls_on_no_tool")]
    plane.plot(*values, ".", color=ORANGE, markersize=5, label="single seed", zorder=3)
    for share in by_share:
        at = missed[share].value, false[share].value
        plane.annotate(f"{share:.0%}", at, xytext=(7, 6), textcoords="offset points", fontsize=9, fontweight="bold")
    plane.set(xlabel="missed calls (share of call rows)", ylabel="false calls (share of no_tool rows)")
    plane.legend(frameon=False, fontsize=9)
    by.axvspan(low, high, color=GREY, alpha=0.3, linewidth=0, zorder=0, label=f"the lesson's band: {low:.0%}–{high:.0%}")
    for rates, look in (
        (false, {"color": VERMILLION, "marker": "o", "label": "false calls, of no_tool rows"}),
        (missed, {"color": BLUE, "marker": "s", "label": "missed calls, of call rows"}),
    ):
        by.errorbar(list(rates), [rate.value for rate in rates.values()], yerr=whiskers(list(rates.values())), capsize=3, **look)
    by.set(xlabel="share of negatives in training", ylabel="share of test rows (whiskers: 95% interval)", ylim=(-0.02, None))
    by.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    by.legend(frameon=False, fontsize=9)
    return fig


def left_out(runs: Sequence[Mapping[str, Any]]) -> Figure:
    """For each kind of negative, the false calls on its own test rows when trained with it and when trained without it.

    `runs` are rows of `python -m helpers sweep`; seeds are pooled, with the caveat of `share_sweep`. Raises ValueError when no kind was
    left out, when the runs with every kind at the same share are missing, or when runs differ in base or size.
    """
    without = [run for run in runs if run["experiment"] == "left_out"]
    shares = {run["share"] for run in without}
    reference = [run for run in runs if run["experiment"] == "share" and run["share"] in shares]
    for kept, what in ((without, "the left-out experiment"), (reference, "its reference, the same share with every kind")):
        _comparable(kept, what)
    _comparable([*without, *reference], "the left-out experiment and its reference")
    kinds = [kind for kind in KINDS if any(run["left_out"] == kind for run in without)]
    fig, ax = figure("Does the router refuse a kind of negative that it was never shown?", 9.0, 2.0 + 0.55 * len(kinds))
    for label, colour, offset in (("trained with the kind", BLUE, -0.2), ("trained without it", ORANGE, 0.2)):
        rates = {}
        for y, kind in enumerate(kinds):
            used = reference if offset < 0 else [run for run in without if run["left_out"] == kind]
            rate = rates[y + offset] = _pooled(run["false_calls"][kind] for run in used)
            ax.text(rate.interval()[1] + 0.012, y + offset, f"{rate.hits}/{rate.of}", va="center", fontsize=9)
        bars(ax, rates, 0.38, vertical=False, label=label, color=colour)
    ax.set_yticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds])
    ax.set(xlim=(0, 1.12), xticks=[0, 0.2, 0.4, 0.6, 0.8, 1.0])
    ax.set_xlabel("false calls (share of the kind's test rows, seeds pooled; whiskers: 95% interval)")
    ax.invert_yaxis()
    fig.legend(*ax.get_legend_handles_labels(), **LEGEND)
    return fig


def growth(record: Mapping[str, Any]) -> Figure:
    """The time of a row against the size of the catalogue, and that of all rows against their number, by stock paths and by ours.

    `record` is that of `python -m helpers bench --growth`. Both axes are logarithmic; the slope of a line, fitted by least squares, is
    the power of the size with which its time grows. Raises ValueError when there are not two catalogues and two numbers of rows.
    """
    catalogues, numbers = record["catalogue"], record["rows"]
    if min(len(catalogues), len(numbers)) < 2:
        got = f"{len(catalogues)} and {len(numbers)}"
        raise ValueError(f"growth needs at least two catalogues and two numbers of rows, got {got}; measure them with: bench --growth")
    fig, (per_row, in_all) = figure("How does the time grow with the catalogue, and with the number of requests?", 11.5, 4.8, columns=2)
    for work, name, colour in (("training", "train", BLUE), ("routing", "route", ORANGE)):
        for whose in ("stock", "ours"):
            _growing(per_row, {c["tools"]: 1000 * c[f"{name}_{whose}"] for c in catalogues}, f"{work}, {whose}", whose, colour)
    for whose in ("stock", "ours"):
        _growing(in_all, {n["rows"]: n[whose] for n in numbers if n[whose] is not None}, f"routing, {whose}", whose, ORANGE)
    tools = {c["tools"]: f"{c['tools']}\n({c['prompt_tokens']:,})" for c in catalogues}
    for ax, ticks in ((per_row, tools), (in_all, {n["rows"]: f"{n['rows']:,}" for n in numbers})):
        ax.set(xscale="log", yscale="log")
        ax.set_xticks(list(ticks), list(ticks.values()))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))  # 100, not 10²
        ax.legend(frameon=False, fontsize=9, title="slope: the power with which time grows", title_fontsize=9)
    per_row.set(xlabel="tools in the catalogue (tokens of its prompt)", ylabel="time of one row (ms)")
    in_all.set(xlabel="requests", ylabel="time of all requests (s)")
    return fig


def _comparable(runs: list[Mapping[str, Any]], what: str) -> list[Mapping[str, Any]]:
    """The runs. Raises ValueError when there is none, or when they differ in more than the experiment."""
    if not runs:
        raise ValueError(f"there is no run of {what} among the rows; make them with: python -m helpers sweep")
    states = sorted({(run["fingerprint"]["base"], run["size"]) for run in runs})
    if len(states) > 1:
        raise ValueError(f"runs of {what} differ in (base, size of the training set): {states}; show one at a time")
    return runs


def _pooled(counts: Iterable[Sequence[int]]) -> Rate:
    """One rate from (hits, of) of several runs."""
    hits, of = zip(*counts, strict=True)
    return Rate(sum(hits), sum(of))


def _points(ax: Axes, across: list[Rate], up: list[Rate], colour: str, label: str) -> None:
    """A point for each pair of rates, with its interval both ways."""
    x, y = ([rate.value for rate in rates] for rates in (across, up))
    ax.errorbar(x, y, xerr=whiskers(across), yerr=whiskers(up), fmt="o", markersize=8, capsize=3, elinewidth=1, color=colour, label=label)


def _growing(ax: Axes, seconds: Mapping[int, float], label: str, whose: str, colour: str) -> None:
    """Times by size, ours solid and stock dashed; where there are two or more, the label has the slope of their logarithms."""
    if not seconds:
        return
    if len(seconds) > 1:
        slope, _ = np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)
        label = f"{label}: slope {slope:z.2f}"
    ax.plot(*zip(*seconds.items(), strict=True), "o-" if whose == "ours" else "s--", color=colour, label=label)
