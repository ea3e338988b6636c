"""Figures about holding back: what a threshold costs and saves, harm done, attacks, and how long an answer takes."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from helpers.abstention import RiskCoverage
from helpers.evaluation import FourNumberReport, Rate
from helpers.plots.style import BLACK, GREY, LEGEND, SERIES, bars, figure, sizes, style
from helpers.shop import Harm


def risk_coverage(curves: Mapping[str, RiskCoverage]) -> Figure:
    """Share of wrong calls among those made, by share of calls made, one line a measure, with its 95% interval as a band.

    The legend gives the mean risk over all coverages. Raises ValueError when there is no curve.
    """
    sizes((name, curve.made) for name, curve in curves.items())
    fig, ax = figure("How many of the calls are wrong when only the surest are made? (bands: 95% interval)", 8.5, 4.8)
    for index, (name, curve) in enumerate(curves.items()):
        low, high = zip(*(rate.interval() for rate in curve.risk), strict=True)
        colour = SERIES[index % len(SERIES)]
        ax.plot(curve.coverage, [rate.value for rate in curve.risk], color=colour, label=f"{name} (mean risk {curve.area:.3f})")
        ax.fill_between(curve.coverage, low, high, color=colour, alpha=0.12, linewidth=0)
    ax.axhline(next(iter(curves.values())).risk[-1].value, color=GREY, linestyle=":", label="all calls made")
    ax.set(xlim=(0, 1.02), ylim=(0, None), xlabel="coverage (share of calls made)", ylabel="risk (share of those that are wrong)")
    fig.legend(*ax.get_legend_handles_labels(), **LEGEND | {"ncols": 2})
    return fig


def harm(harms: Mapping[str, Harm]) -> Figure:
    """What each router did in the shop, per request: refunds paid wrongly and rightly, refunds missed, and questions put to customers.

    Raises ValueError when there is no router.
    """
    sizes((name, range(done.of)) for name, done in harms.items())
    panels = {
        "wrong refunds paid ↓": "wrong_refunds",
        "right refunds paid ↑": "right_refunds",
        "questions to customers\nwho wanted a call ↓": "questions",
    }
    fig, axes = figure("What did each router do to the shop? (whiskers: 95% interval, counts at the bars)", 11, 1.8 + 0.5 * len(harms), 3)
    for ax, (title, field) in zip(axes, panels.items(), strict=True):
        rates = {float(n): Rate(getattr(done, field), done.of) for n, done in enumerate(harms.values())}
        bars(ax, rates, 0.62, vertical=False, color=[SERIES[n % len(SERIES)] for n in range(len(rates))])
        for y, rate in rates.items():
            ax.text(rate.interval()[1] + 0.008, y, str(rate.hits), va="center", fontsize=9)
        ax.set_title(title, fontsize=10)
        ax.set(
            xlim=(0, max(rate.interval()[1] for rate in rates.values()) * 1.18 + 0.02),
            xlabel="share of requests",
            ylim=(len(rates) - 0.5, -0.5),
        )
        ax.set_yticks(range(len(harms)), list(harms) if ax is axes[0] else [""] * len(harms))
    return fig


def attacks(reports: Mapping[str, Mapping[str, FourNumberReport]]) -> Figure:
    """Successful attacks, one group of bars per attack: the share of its messages that end in a call which is no right answer.

    `reports` is router -> attack -> report. Raises ValueError when there is no router, or an attack without rows.
    """
    sizes((f"{name}, {attack}", report.rows) for name, found in reports.items() for attack, report in found.items())
    names = list(next(iter(reports.values())))
    fig, ax = figure("Which attacks get a call out of the router? (whiskers: 95% interval)", 10, 4.4)
    width = 0.84 / len(reports)
    for index, (router, found) in enumerate(reports.items()):
        offset = (index - (len(reports) - 1) / 2) * width
        rates = {n + offset: found[name].wrong_calls for n, name in enumerate(names)}
        bars(ax, rates, width * 0.92, label=router, **style(index))
        for x, rate in rates.items():
            ax.text(x, rate.interval()[1] + 0.015, f"{rate.hits}/{rate.of}", ha="center", va="bottom", fontsize=8)
    ax.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names])
    ax.set(ylim=(0, 1.15), yticks=[0, 0.2, 0.4, 0.6, 0.8, 1.0], ylabel="share of attacks that succeed ↓")
    fig.legend(*ax.get_legend_handles_labels(), **LEGEND)
    return fig


def latency(seconds: Mapping[str, Sequence[float]]) -> Figure:
    """How long single requests take: the share answered within a time, one line a router, with the median and the 95th percentile.

    Raises ValueError when there is no router, or one without times.
    """
    sizes(seconds.items())
    fig, ax = figure("How long does one request take?", 8.0, 4.2)
    for index, (name, times) in enumerate(seconds.items()):
        ordered = np.sort(times) * 1000
        p50, p95 = np.quantile(ordered, [0.5, 0.95])
        share = np.arange(1, len(ordered) + 1) / len(ordered)
        ax.step(ordered, share, where="post", color=SERIES[index % len(SERIES)], label=f"{name}: p50 {p50:.0f} ms, p95 {p95:.0f} ms")
    for level in (0.5, 0.95):
        ax.axhline(level, color=BLACK, linewidth=0.6, linestyle=":")
    ax.set(xscale="log", ylim=(0, 1.02), xlabel="time (ms, log scale)", ylabel="share of requests answered")
    for axis_formatter in (ax.xaxis.set_major_formatter, ax.xaxis.set_minor_formatter):
        axis_formatter(ScalarFormatter())  # 50, not 5 × 10¹
    fig.legend(*ax.get_legend_handles_labels(), **LEGEND | {"ncols": 1})
    return fig
