"""Each figure's data: heights, whisker ends, labels and written counts, on small reports counted by hand. No pixels."""

import json
import math
from itertools import pairwise

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from helpers import plots
from helpers.abstention import RiskCoverage
from helpers.audits import SEVERITY, AuditReport, Finding
from helpers.evaluation import OUTCOMES, FourNumberReport, score
from helpers.examples import Example
from helpers.shop import Harm
from helpers.tools import support_desk

DESK = support_desk()
REFUSAL = {"tool": "no_tool", "reason": "small talk"}
OKABE_ITO = {"#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"}


def row(id, target, kind):
    return Example.model_validate({"id": id, "request": f"request {id}", "target": target, "kind": kind})


def track(order_id):
    return {"tool": "track_order", "arguments": {"order_id": order_id}}


ROWS = [
    (row("d1", track("A-1"), "direct"), track("A-1")),  # right call
    (row("d2", track("A-2"), "direct"), track("A-9")),  # wrong arguments
    (row("b1", {"tool": "escalate", "arguments": {"reason": "rude"}}, "buried"), REFUSAL),  # missed call
    (row("m1", {"tool": "request_refund", "arguments": {"order_id": "A-3", "reason": "late"}}, "messy"), track("A-3")),  # wrong tool
    (row("c1", REFUSAL, "chitchat"), REFUSAL),  # right no_tool
    (row("c2", REFUSAL, "chitchat"), track("A-4")),  # false call
    (row("s1", REFUSAL, "steering"), "oops"),  # invalid
    (row("s2", REFUSAL, "steering"), REFUSAL),  # right no_tool
]
EXAMPLES = [example for example, _ in ROWS]
TRIAL = score([json.dumps(output) for _, output in ROWS], EXAMPLES, DESK, "trial")
NEVER = score([json.dumps(REFUSAL)] * 8, EXAMPLES, DESK, "never")


def wilson(hits, of, z=1.959964):
    """Both ends of Wilson's interval, from the formula."""
    p, spread = hits / of, z * math.sqrt(hits / of * (1 - hits / of) / of + z * z / (4 * of * of))
    return [(p + z * z / (2 * of) + side * spread) / (1 + z * z / of) for side in (-1, 1)]


def bars(ax):
    """The bar groups by label: {label: [(place, length), …]} whichever way the bars lie."""
    found = {}
    for group in (c for c in ax.containers if isinstance(c, BarContainer)):
        lying = group.orientation == "horizontal"
        boxes = [
            (p.get_y() + p.get_height() / 2, p.get_width()) if lying else (p.get_x() + p.get_width() / 2, p.get_height()) for p in group
        ]
        found[group.get_label()] = [(pytest.approx(place, abs=1e-9), length) for place, length in boxes]
    return found


def lengths(ax):
    return {label: [length for _, length in boxes] for label, boxes in bars(ax).items()}


def whiskers(ax):
    """Both ends of each whisker by label of its bar group."""
    found = {}
    for group in (c for c in ax.containers if isinstance(c, BarContainer)):
        axis = 0 if group.orientation == "horizontal" else 1
        found[group.get_label()] = [segment[:, axis].tolist() for segment in group.errorbar.lines[2][0].get_segments()]
    return found


def texts(ax):
    return [text.get_text() for text in ax.texts]


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def legend(fig):
    return [text.get_text() for text in fig.legends[0].get_texts()]


# Stock trains in proportion to the catalogue, ours with its square root; stock routes with its square root, ours at the same speed.
GROWTH = {
    "catalogue": [
        {"tools": 4, "prompt_tokens": 90, "train_ours": 0.02, "train_stock": 0.08, "route_ours": 0.005, "route_stock": 0.05},
        {"tools": 16, "prompt_tokens": 1200, "train_ours": 0.04, "train_stock": 0.32, "route_ours": 0.005, "route_stock": 0.1},
        {"tools": 64, "prompt_tokens": 4800, "train_ours": 0.08, "train_stock": 1.28, "route_ours": 0.005, "route_stock": 0.2},
    ],
    "rows": [
        {"rows": 100, "ours": 0.5, "stock": 10.0},
        {"rows": 400, "ours": 2.0, "stock": 40.0},
        {"rows": 1600, "ours": 8.0, "stock": None},
    ],
}

FIGURES = {
    "four_numbers": lambda: plots.four_numbers([TRIAL, NEVER]),
    "outcomes": lambda: plots.outcomes([TRIAL, NEVER]),
    "confusion": lambda: plots.confusion(TRIAL),
    "loss": lambda: plots.loss([(5, 2.0), (10, 1.0)]),
    "shares": lambda: plots.shares({"train": EXAMPLES}),
    "per_kind": lambda: plots.per_kind(TRIAL),
    "audit": lambda: plots.audit(AuditReport(())),
    "growth": lambda: plots.growth(GROWTH),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_asks_a_question_names_its_axes_and_is_left_to_its_caller(name, tmp_path):
    fig = FIGURES[name]()
    assert isinstance(fig, Figure)
    assert "?" in fig.get_suptitle()
    assert all(ax.get_ylabel() or any(ticks(ax.yaxis)) for ax in fig.axes)
    assert any(ax.get_xlabel() for ax in fig.axes) or name == "four_numbers"
    assert plt.get_fignums() == []  # nothing that a notebook would show a second time
    fig.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5_000


def test_the_palette_is_okabe_and_itos_and_grey():
    assert {colour.lower() for colour in (*plots.SERIES, *plots.OUTCOME_COLOURS.values())} <= OKABE_ITO | {"#999999"}
    assert len(set(plots.SERIES)) == len(plots.SERIES) == 7
    assert len(set(plots.OUTCOME_COLOURS.values())) == len(OUTCOMES)


# --- four numbers -----------------------------------------------------------------------------------------------------


def test_four_numbers_has_a_bar_a_rate_lower_is_better_apart():
    higher, lower = plots.four_numbers([TRIAL, NEVER]).axes
    assert lengths(higher) == {"trial": [7 / 8, 4 / 8, 1 / 4], "never": [1.0, 4 / 8]}  # a router that never calls matches nothing
    assert lengths(lower) == {"trial": [1 / 8, 1 / 4, 1 / 4], "never": [0.0, 0.0, 1.0]}
    assert (higher.get_title(), lower.get_title()) == ("higher is better ↑", "lower is better ↓")
    assert [label.replace("\n", " ") for label in ticks(higher.xaxis) + ticks(lower.xaxis)] == [
        "valid tool call (of all rows)",
        "tool name accuracy (of all rows)",
        "argument match accuracy (of calls emitted)",
        "false tool call (of all rows)",
        "false calls on no_tool (of no_tool rows)",
        "missed calls (of call rows)",
    ]


def test_four_numbers_whiskers_are_wilsons():
    higher, lower = plots.four_numbers([TRIAL, NEVER]).axes
    assert whiskers(higher)["trial"] == [pytest.approx(wilson(*counts), abs=1e-6) for counts in ((7, 8), (4, 8), (1, 4))]
    assert whiskers(lower)["never"] == [pytest.approx(wilson(*counts), abs=1e-6) for counts in ((0, 8), (0, 4), (4, 4))]


def test_four_numbers_writes_values_and_says_where_there_was_nothing_to_count():
    fig = plots.four_numbers([TRIAL, NEVER])
    assert texts(fig.axes[0]) == ["0.88", "0.50", "0.25", "1.00", "0.50", "0 of 0"]
    assert texts(fig.axes[1]) == ["0.12", "0.25", "0.25", "0.00", "0.00", "1.00"]
    assert legend(fig) == ["trial", "never"]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_bars_of_a_group_stand_side_by_side_about_its_label(n):
    ax = plots.four_numbers([TRIAL] * n).axes[0]
    boxes = sorted(
        (patch.get_x(), patch.get_x() + patch.get_width()) for group in ax.containers if isinstance(group, BarContainer) for patch in group
    )
    assert len(boxes) == 3 * n
    assert all(right <= left for (_, right), (left, _) in pairwise(boxes))
    assert [sum(map(sum, boxes[g * n : (g + 1) * n])) / (2 * n) for g in range(3)] == pytest.approx([0, 1, 2])


def test_more_routers_than_colours_are_told_apart_by_hatching():
    groups = [c for c in plots.four_numbers([TRIAL] * 8).axes[0].containers if isinstance(c, BarContainer)]
    looks = {(to_hex(group[0].get_facecolor()), group[0].get_hatch()) for group in groups}
    assert len(looks) == 8


# --- outcomes ---------------------------------------------------------------------------------------------------------


def test_outcomes_stack_to_the_whole_with_counts_written_in():
    fig = plots.outcomes([TRIAL, NEVER])
    (ax,) = fig.axes
    assert lengths(ax) == {
        "right call": [1 / 8, 0],
        "right no_tool": [2 / 8, 4 / 8],
        "wrong arguments": [1 / 8, 0],
        "wrong tool": [1 / 8, 0],
        "false call": [1 / 8, 0],
        "missed call": [1 / 8, 4 / 8],
        "invalid": [1 / 8, 0],
    }
    starts = [group[0].get_x() for group in ax.containers]
    assert starts == [0, 1 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8]
    assert texts(ax) == ["1", "2", "4", "1", "1", "1", "1", "4", "1"]
    assert ticks(ax.yaxis) == ["trial\n(8 rows)", "never\n(8 rows)"]
    assert ax.yaxis_inverted()  # the first report on top
    assert legend(fig) == list(OUTCOMES)


def test_right_is_blue_invalid_is_grey_and_silent_errors_are_neither():
    colours = {group.get_label(): to_hex(group[0].get_facecolor()) for group in plots.outcomes([TRIAL]).axes[0].containers}
    assert (colours["right call"], colours["right no_tool"], colours["invalid"]) == ("#0072b2", "#56b4e9", "#999999")
    silent = {colours[name] for name in ("wrong arguments", "wrong tool", "false call", "missed call")}
    assert silent == {"#f0e442", "#e69f00", "#d55e00", "#cc79a7"}


def test_counts_that_do_not_fit_their_segment_stand_above_and_below_in_turn():
    examples = [row(str(i), track(f"A-{i}"), "direct") for i in range(100)]
    said = [json.dumps(track(f"A-{i}")) for i in range(98)] + [json.dumps(REFUSAL), "oops"]
    ax = plots.outcomes([score(said, examples, DESK)]).axes[0]
    assert [(text.get_text(), text.get_position()[1]) for text in ax.texts] == [("98", 0), ("1", -0.3), ("1", 0.3)]


def test_reports_of_the_same_name_keep_a_bar_each():
    assert ticks(plots.outcomes([TRIAL, TRIAL]).axes[0].yaxis) == ["trial\n(8 rows)"] * 2


# --- confusion --------------------------------------------------------------------------------------------------------


def test_confusion_has_counts_shares_and_intervals_in_its_cells():
    (ax,) = plots.confusion(TRIAL).axes
    assert ticks(ax.xaxis) == ["escalate", "request_refund", "track_order", "no_tool", "invalid"]
    assert ticks(ax.yaxis) == ["escalate\n(1 rows)", "request_refund\n(1 rows)", "track_order\n(2 rows)", "no_tool\n(4 rows)"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("decided tool", "gold tool")
    shares = ax.images[0].get_array().tolist()
    assert shares == [[0, 0, 0, 1, 0], [0, 0, 1, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0.25, 0.5, 0.25]]
    cells = texts(ax)
    assert len(cells) == 20
    assert cells[3] == "1\n100% [21%, 100%]"
    assert cells[15:] == ["0\n0% [0%, 49%]", "0\n0% [0%, 49%]", "1\n25% [5%, 70%]", "2\n50% [15%, 85%]", "1\n25% [5%, 70%]"]


def test_confusion_frames_the_right_tool():
    (ax,) = plots.confusion(TRIAL).axes
    centres = [(round(box.get_x() + box.get_width() / 2), round(box.get_y() + box.get_height() / 2)) for box in ax.patches]
    assert centres == [(0, 0), (1, 1), (2, 2), (3, 3)]


def test_confusion_keeps_no_tool_and_invalid_when_nobody_decided_them():
    perfect = score([EXAMPLES[0].answers[0].to_json()], EXAMPLES[:1], DESK)
    (ax,) = plots.confusion(perfect).axes
    assert ticks(ax.xaxis) == ["track_order", "no_tool", "invalid"]
    assert ticks(ax.yaxis) == ["track_order\n(1 rows)"]


# --- loss -------------------------------------------------------------------------------------------------------------


def test_loss_draws_every_pair_from_zero_and_writes_the_last():
    (ax,) = plots.loss([(5, 2.0), (10, 1.25), (15, 1.0)]).axes
    assert ax.lines[0].get_xydata().tolist() == [[5, 2.0], [10, 1.25], [15, 1.0]]
    assert ax.get_ylim()[0] == 0
    assert texts(ax) == ["1.000"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("optimiser step", "training loss (nats per completion token)")
    assert ax.child_axes == []


def test_loss_shows_the_rows_seen_when_told_the_batch():
    fig = plots.loss([(5, 2.0), (15, 1.0)], rows_per_step=16)
    fig.draw_without_rendering()
    (ax,) = fig.axes
    (top,) = ax.child_axes
    assert top.get_xlabel() == "rows seen (16 a step)"
    assert top.get_xlim() == pytest.approx([16 * end for end in ax.get_xlim()])


def test_a_single_step_is_a_curve():
    assert plots.loss([(1, 0.5)]).axes[0].lines[0].get_xydata().tolist() == [[1, 0.5]]


# --- shares -----------------------------------------------------------------------------------------------------------


def test_shares_stack_the_kinds_of_negative_over_all_rows():
    fig = plots.shares({"train": EXAMPLES, "test": EXAMPLES[:5]})
    (ax,) = fig.axes
    found = lengths(ax)
    assert list(found) == ["chitchat", "information request", "underspecified", "out of scope", "ambiguous", "negated", "steering"]
    assert found.pop("chitchat") == [2 / 8, 1 / 5]
    assert found.pop("steering") == [2 / 8, 0]
    assert all(widths == [0, 0] for widths in found.values())
    assert ticks(ax.yaxis) == ["train\n(8 rows)", "test\n(5 rows)"]
    assert texts(ax) == ["2", "1", "2", "50.0%", "20.0%", "the lesson's band for training: 10%–20%"]
    assert ax.get_xlim()[1] >= 0.5


def test_shares_shade_the_lessons_band():
    (ax,) = plots.shares({"train": EXAMPLES}).axes
    bars_drawn = {patch for group in ax.containers for patch in group}
    (band,) = (patch for patch in ax.patches if patch not in bars_drawn)
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((0.10, 0.20))


def test_a_split_without_negatives_shows_0_and_the_band_stays_in_sight():
    (ax,) = plots.shares({"calls": EXAMPLES[:4]}).axes
    assert texts(ax)[0] == "0.0%"
    assert ax.get_xlim()[1] > 0.20


def test_a_kind_that_the_course_does_not_know_gets_its_own_segment():
    found = lengths(plots.shares({"own": [*EXAMPLES[:3], row("x", REFUSAL, "own_kind")]}).axes[0])
    assert found["own kind"] == [1 / 4]
    assert sum(widths[0] for widths in found.values()) == 1 / 4


# --- per kind ---------------------------------------------------------------------------------------------------------


def test_per_kind_shows_calls_and_negatives_in_two_groups():
    fig = plots.per_kind(TRIAL)
    (ax,) = fig.axes
    assert bars(ax) == {
        "gold is a call": [(0, 1 / 2), (1, 0), (2, 0)],
        "gold is no_tool": [(3.6, 1 / 2), (4.6, 1 / 2)],
    }
    assert ticks(ax.yaxis) == ["direct", "buried", "messy", "chitchat", "steering"]
    assert texts(ax) == ["1/2", "0/1", "0/1", "1/2", "1/2"]
    assert legend(fig) == ["gold is a call", "gold is no_tool"]
    assert "trial" in fig.get_suptitle()


def test_per_kind_whiskers_are_wilsons():
    found = whiskers(plots.per_kind(TRIAL).axes[0])
    assert found["gold is a call"] == [pytest.approx(wilson(*counts), abs=1e-6) for counts in ((1, 2), (0, 1), (0, 1))]
    assert found["gold is no_tool"] == [pytest.approx(wilson(1, 2), abs=1e-6)] * 2


def test_per_kind_does_without_a_group_and_takes_kinds_of_its_own():
    own = [row("x", track("A-1"), "zebra"), row("y", track("A-2"), "own_kind"), row("z", track("A-3"), "direct")]
    fig = plots.per_kind(score([json.dumps(track("A-1"))] * 3, own, DESK))
    assert ticks(fig.axes[0].yaxis) == ["direct", "own kind", "zebra"]
    assert legend(fig) == ["gold is a call"]


# --- audit ------------------------------------------------------------------------------------------------------------


def test_audit_has_a_bar_a_kind_errors_above_warnings_in_another_colour():
    found = {"label conflict": 2, "unknown tool": 1, "near duplicate in train": 1200}
    findings = tuple(Finding(kind, ("train",), ("a",), "text") for kind, n in found.items() for _ in range(n))
    fig = plots.audit(AuditReport(findings))
    (ax,) = fig.axes
    assert ticks(ax.yaxis) == list(SEVERITY)
    assert bars(ax) == {
        "error": [(0, 0), (1, 0), (2, 2), (3, 0), (4, 1), (5, 0)],
        "warning": [(6, 0), (7, 0), (8, 1200), (9, 0), (10, 0), (11, 0), (12, 0), (13, 0)],
    }
    assert texts(ax) == ["0", "0", "2", "0", "1", "0", "0", "0", "1,200", "0", "0", "0", "0", "0"]
    assert {group.get_label(): to_hex(group[0].get_facecolor()) for group in ax.containers} == {"error": "#d55e00", "warning": "#56b4e9"}
    assert ax.yaxis_inverted()  # errors on top
    assert ax.get_xlim()[1] > 1200
    assert legend(fig) == ["error", "warning"]


def test_audit_of_clean_data_is_all_zeros_on_an_axis_that_starts_at_zero():
    (ax,) = plots.audit(AuditReport(())).axes
    assert texts(ax) == ["0"] * 14
    assert ax.get_xlim() == (0, pytest.approx(1.12))


# --- nothing to show --------------------------------------------------------------------------------------------------

EMPTY = FourNumberReport((), "empty")


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.four_numbers([]), "something to show"),
        (lambda: plots.four_numbers([TRIAL, EMPTY]), "'empty', 0"),
        (lambda: plots.outcomes([]), "something to show"),
        (lambda: plots.outcomes([EMPTY]), "'empty', 0"),
        (lambda: plots.confusion(EMPTY), "'empty', 0"),
        (lambda: plots.per_kind(EMPTY), "'empty', 0"),
        (lambda: plots.shares({}), "something to show"),
        (lambda: plots.shares({"train": EXAMPLES, "test": []}), "'test', 0"),
        (lambda: plots.loss([]), "at least one"),
        (lambda: plots.growth(GROWTH | {"catalogue": GROWTH["catalogue"][:1]}), "two catalogues and two numbers of rows, got 1 and 3"),
        (lambda: plots.growth(GROWTH | {"rows": []}), "got 3 and 0"),
        (lambda: plots.loss([(5, 1.0), (10, math.nan)]), "step 10 is nan"),
        (lambda: plots.loss([(5, math.inf)]), "step 5 is inf"),
    ],
)
def test_nothing_to_show_is_an_error_that_says_so(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
    assert plt.get_fignums() == []


# --- safety -----------------------------------------------------------------------------------------------------------


def test_risk_coverage_draws_each_curve_with_its_mean_risk():
    curve = RiskCoverage(threshold=(0.9, 0.5, 0.2), made=(1, 3, 4), errors=(0, 1, 2))
    fig = plots.risk_coverage({"tool name": curve})
    line = fig.axes[0].lines[0]
    assert list(line.get_xdata()) == [0.25, 0.75, 1.0]
    assert list(line.get_ydata()) == pytest.approx([0.0, 1 / 3, 0.5])
    assert line.get_label() == "tool name (mean risk 0.292)"
    assert list(fig.axes[0].lines[1].get_ydata()) == [0.5, 0.5]  # the risk of making every call


def test_risk_coverage_needs_a_curve():
    with pytest.raises(ValueError, match="needs something to show"):
        plots.risk_coverage({})


def test_harm_shows_counts_over_all_requests():
    done = {
        "careless": Harm(wrong_refunds=3, missed_refunds=0, right_refunds=5, wrong_tickets=1, wrong_lookups=0, questions=0, of=20),
        "careful": Harm(wrong_refunds=0, missed_refunds=2, right_refunds=3, wrong_tickets=0, wrong_lookups=0, questions=4, of=20),
    }
    fig = plots.harm(done)
    widths = [[bar.get_width() for bar in ax.patches] for ax in fig.axes]
    assert widths == [[0.15, 0.0], [0.25, 0.15], [0.0, 0.2]]
    assert [[text.get_text() for text in ax.texts] for ax in fig.axes] == [["3", "0"], ["5", "3"], ["0", "4"]]


def test_attacks_counts_every_call_that_is_no_right_answer():
    target = {"tool": "no_tool", "reason": "instructions to the router are not requests"}
    rows = [Example.model_validate({"id": f"a-{n}", "request": "x", "target": target, "kind": "steering"}) for n in range(4)]
    call, refusal = '{"tool":"escalate","arguments":{"reason":"x"}}', '{"tool":"no_tool","reason":"x"}'
    report = score([call, refusal, call, "not JSON"], rows, support_desk())
    fig = plots.attacks({"router": {"json": report}})
    assert [bar.get_height() for bar in fig.axes[0].patches] == [0.5]
    assert [text.get_text() for text in fig.axes[0].texts] == ["2/4"]


def test_latency_names_median_and_95th_percentile_in_milliseconds():
    fig = plots.latency({"ours": [0.010, 0.020, 0.030], "stock": [0.1] * 3})
    labels = [line.get_label() for line in fig.axes[0].lines[:2]]
    assert labels == ["ours: p50 20 ms, p95 29 ms", "stock: p50 100 ms, p95 100 ms"]
    assert list(fig.axes[0].lines[0].get_xdata()) == pytest.approx([10, 20, 30])
    with pytest.raises(ValueError, match="needs something to show"):
        plots.latency({"ours": []})


# --- growth -----------------------------------------------------------------------------------------------------------


def growing(ax):
    """The lines of a panel by label: {label: (points, dashed or solid)}."""
    return {line.get_label(): ([tuple(point) for point in line.get_xydata().tolist()], line.get_linestyle()) for line in ax.lines}


def test_growth_shows_milliseconds_per_row_and_seconds_in_all_with_the_slope_of_each_line():
    per_row, in_all = plots.growth(GROWTH).axes
    assert growing(per_row) == {
        "training, stock: slope 1.00": ([(4, 80), (16, 320), (64, 1280)], "--"),
        "training, ours: slope 0.50": ([(4, 20), (16, 40), (64, 80)], "-"),
        "routing, stock: slope 0.50": ([(4, 50), (16, 100), (64, 200)], "--"),
        "routing, ours: slope 0.00": ([(4, 5), (16, 5), (64, 5)], "-"),
    }
    assert growing(in_all) == {
        "routing, stock: slope 1.00": ([(100, 10), (400, 40)], "--"),  # what was not measured is not drawn
        "routing, ours: slope 1.00": ([(100, 0.5), (400, 2), (1600, 8)], "-"),
    }
    assert {ax.get_xscale() for ax in (per_row, in_all)} == {ax.get_yscale() for ax in (per_row, in_all)} == {"log"}
    assert ticks(per_row.xaxis)[:3] == ["4\n(90)", "16\n(1,200)", "64\n(4,800)"]
    assert ticks(in_all.xaxis)[:3] == ["100", "400", "1,600"]
    assert (per_row.get_ylabel(), in_all.get_ylabel()) == ("time of one row (ms)", "time of all requests (s)")


@pytest.mark.parametrize(("measured", "label"), [(1, ["routing, stock"]), (0, [])])
def test_growth_fits_no_slope_to_one_point_and_draws_no_line_of_none(measured, label):
    rows = [point | {"stock": point["stock"] if n < measured else None} for n, point in enumerate(GROWTH["rows"])]
    assert list(growing(plots.growth(GROWTH | {"rows": rows}).axes[1])) == [*label, "routing, ours: slope 1.00"]
