"""Figures of routers on labelled rows: their rates, how rows ended, what was taken for what."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from helpers.evaluation import LOWER_IS_BETTER, OUTCOMES, FourNumberReport, Rate
from helpers.examples import CALL_KINDS
from helpers.negatives import KINDS
from helpers.plots.style import BLACK, BLUE, GREY, LEGEND, ORANGE, PURPLE, SKY_BLUE, VERMILLION, YELLOW, bars, figure, sizes, stack, style
from helpers.tools import NO_TOOL

OUTCOME_COLOURS = dict(zip(OUTCOMES, (BLUE, SKY_BLUE, YELLOW, ORANGE, VERMILLION, PURPLE, GREY), strict=True))

RATE_LABELS = {
    "valid_tool_call_rate": "valid\ntool call\n(of all rows)",
    "tool_name_accuracy": "tool name\naccuracy\n(of all rows)",
    "argument_match_accuracy": "argument match\naccuracy\n(of calls emitted)",
    "false_tool_call_rate": "false\ntool call\n(of all rows)",
    "false_calls_on_no_tool": "false calls\non no_tool\n(of no_tool rows)",
    "missed_calls": "missed\ncalls\n(of call rows)",
}


def four_numbers(reports: Sequence[FourNumberReport]) -> Figure:
    """The four numbers with `false_calls_on_no_tool` and `missed_calls`: grouped bars, one a router, higher-is-better apart from lower.

    A rate that counts nothing (argument match of a router that never calls) has no bar but the words "0 of 0".
    Raises ValueError when there is no report, or one without rows.
    """
    sizes((report.name, report.rows) for report in reports)
    title = "How often is each router right, and how often does it act wrongly? (whiskers: 95% interval)"
    fig, axes = figure(title, max(10.0, 4 + 1.6 * len(reports)), 4.8, columns=2)
    width = 0.84 / len(reports)
    for ax, lower in zip(axes, (False, True), strict=True):
        names = [name for name in RATE_LABELS if (name in LOWER_IS_BETTER) == lower]
        for index, report in enumerate(reports):
            offset = (index - (len(reports) - 1) / 2) * width
            rates = {group + offset: report.rates[name] for group, name in enumerate(names)}
            bars(ax, rates, width * 0.92, label=report.name, **style(index))
            for x, rate in rates.items():
                text, y = (f"{rate.value:.2f}", rate.interval()[1] + 0.015) if rate.of else ("0 of 0", 0.015)
                ax.text(x, y, text, ha="center", va="bottom", fontsize=8, rotation=0 if rate.of else 90)
        ax.set_xticks(range(len(names)), [RATE_LABELS[name] for name in names])
        ax.set(ylim=(0, 1.1), yticks=[0, 0.2, 0.4, 0.6, 0.8, 1.0], ylabel="share of the rows named below")
        ax.set_title("lower is better ↓" if lower else "higher is better ↑", fontsize=10)
    axes[1].set_facecolor("#f3f3f3")
    fig.legend(*axes[0].get_legend_handles_labels(), **LEGEND)
    return fig


def outcomes(reports: Sequence[FourNumberReport]) -> Figure:
    """How each router's rows ended: right in blues, silent errors in warning colours, invalid in grey, counts written in.

    Shares of one whole, so without intervals: those are in `four_numbers`. Raises ValueError when there is no report, or one without rows.
    """
    named = sizes((report.name, report.rows) for report in reports)
    fig, ax = figure("How does each row end: right, wrong in silence, or invalid in plain sight?", 9.5, 1.9 + 0.62 * len(reports))
    parts = {outcome: [report.outcomes[outcome] for report in reports] for outcome in OUTCOMES}
    stack(ax, parts, named, [{"color": OUTCOME_COLOURS[outcome]} for outcome in parts], length=1.0)
    ax.set_xlabel("share of rows (counts in the bars)")
    fig.legend(*ax.get_legend_handles_labels(), **LEGEND)
    return fig


def confusion(report: FourNumberReport) -> Figure:
    """Gold tool by decided tool, `no_tool` and `invalid` included; each cell has its count, its share of the row and the interval.

    Off the diagonal, a decision that a row's `accept` allows is right all the same. Raises ValueError on a report without rows.
    """
    sizes([(report.name, report.rows)])
    counts = report.confusion()
    gold = sorted({row for row, _ in counts}, key=lambda name: (name == NO_TOOL, name))
    decided = [*sorted({name for cell in counts for name in cell} - {NO_TOOL, "invalid"}), NO_TOOL, "invalid"]
    totals = {row: sum(n for (name, _), n in counts.items() if name == row) for row in gold}
    rates = [[Rate(counts.get((row, column), 0), totals[row]) for column in decided] for row in gold]
    title = f"Which tool does {report.name} take for which?\n(rows, share of the gold tool's rows, 95% interval; framed: right tool)"
    fig, ax = figure(title, 2.2 + 1.45 * len(decided), 1.9 + 0.8 * len(gold))
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


def per_kind(report: FourNumberReport) -> Figure:
    """Exact accuracy for each kind of request, calls above negatives, with intervals and counts. Raises ValueError on no rows."""
    sizes([(report.name, report.rows)])
    fig, ax = figure(f"Which kinds of request does {report.name} get right?", 8.0, 2.0 + 0.36 * (len(report.per_kind()) + 1))
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
            bars(ax, group, 0.72, vertical=False, label=label, color=colour)
            y += 0.6
    ax.set_yticks(list(ticks), ticks.values())
    ax.set(xlim=(0, 1.12), xticks=[0, 0.2, 0.4, 0.6, 0.8, 1.0], xlabel="exact accuracy (share of the kind's rows; whiskers: 95% interval)")
    ax.invert_yaxis()
    fig.legend(*ax.get_legend_handles_labels(), **LEGEND)
    return fig
