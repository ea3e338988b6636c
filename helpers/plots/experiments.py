"""Figures of a sweep: what the share of negatives, and each kind of negative, does to false and to missed calls."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

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
