"""The sweep without a model: its plan, the rows of a run, the record that is resumed, and the figures' data."""

import json
import math
import warnings
from collections import Counter

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.container import BarContainer, ErrorbarContainer

from helpers.evaluation import score
from helpers.examples import Example
from helpers.lab import sweep
from helpers.lab.sweep import Run, largest_size, plan, read_written, rows_for, run_of, run_one, stale
from helpers.negatives import KINDS
from helpers.paths import TINY_BASE
from helpers.plots import left_out, share_sweep
from helpers.recipes import Recipe
from helpers.tools import support_desk

REFUSAL = {"tool": "no_tool", "reason": "small talk"}


def call(number):
    target = {"tool": "track_order", "arguments": {"order_id": f"A-{number}"}}
    return Example.model_validate({"id": f"c-{number}", "request": f"where is A-{number}", "target": target, "kind": "direct"})


def negative(number, kind):
    return Example.model_validate({"id": f"n-{kind}-{number}", "request": f"{kind} {number}", "target": REFUSAL, "kind": kind})


POOL = [call(number) for number in range(60)] + [negative(number, kind) for kind in KINDS for number in range(10)]


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_a_plan_has_the_shares_and_the_kinds_seed_by_seed():
    assert plan(shares=(0.0, 0.15), seeds=(3, 4), size=40, left_out=("steering",)) == [
        Run("share", 0.0, "", 3, 40),
        Run("share", 0.15, "", 3, 40),
        Run("left_out", 0.15, "steering", 3, 40),
        Run("share", 0.0, "", 4, 40),
        Run("share", 0.15, "", 4, 40),
        Run("left_out", 0.15, "steering", 4, 40),
    ]


def test_the_whole_plan_has_every_run_once_in_one_size():
    runs = plan(size=100)
    assert len(runs) == len(set(runs)) == 3 * (7 + 7)
    assert {(run.share, run.seed) for run in runs if run.experiment == "share"} == {
        (share, seed) for share in (0.0, 0.05, 0.10, 0.15, 0.20, 0.30, 0.50) for seed in (0, 1, 2)
    }
    assert {(run.left_out, run.seed, run.share) for run in runs if run.experiment == "left_out"} == {
        (kind, seed, 0.15) for kind in KINDS for seed in (0, 1, 2)
    }
    assert {run.size for run in runs} == {100}


def test_the_reference_is_always_there_and_nothing_is_planned_twice():
    assert plan(shares=(0.5,), seeds=(0,), size=9, left_out=()) == [Run("share", 0.15, "", 0, 9), Run("share", 0.5, "", 0, 9)]
    assert plan(shares=(0.15, 0.15), seeds=(0, 0), size=9, left_out=()) == [Run("share", 0.15, "", 0, 9)]


def test_an_unknown_kind_cannot_be_left_out():
    with pytest.raises(ValueError, match=r"'smalltalk' is no kind of negative to leave out; the kinds are chitchat, .*steering"):
        plan(size=9, left_out=("smalltalk",))


def test_a_run_says_which_it_is():
    assert str(Run("share", 0.05, "", 2, 9)) == "5% negatives, seed 2"
    assert str(Run("left_out", 0.15, "steering", 0, 9)) == "15% negatives without steering, seed 0"


# --- size -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calls", "kinds", "shares", "without", "size"),
    [
        (60, {"chitchat": 70}, (0.0, 0.5), (), 60),  # a set without negatives takes every call
        (60, {"chitchat": 70}, (0.5,), (), 71),  # the reference at 15% has 60 calls and 11 negatives
        (60, {"chitchat": 9}, (0.5,), (), 18),
        (60, {"chitchat": 5, "steering": 1}, (0.15,), ("chitchat",), 9),  # one negative is left: 15% of 10 rounds to 2
        (60, {"chitchat": 5, "steering": 1}, (0.15,), ("steering",), 36),  # five are left: 15% of 37 is 5.55
        (1500, {"chitchat": 900}, (0.0, 0.5), (), sweep.MAX_SIZE),
        (0, {"chitchat": 9}, (0.0,), (), 0),
    ],
)
def test_the_size_is_the_largest_that_every_run_can_have(calls, kinds, shares, without, size):
    negatives = [negative(number, kind) for kind, count in kinds.items() for number in range(count)]
    assert largest_size([call(number) for number in range(calls)] + negatives, shares, without) == size


def test_every_run_of_the_plan_can_be_drawn_from_the_written_rows():
    written, runs = read_written(), plan(seeds=(0,))
    assert runs[0].size == min(sweep.MAX_SIZE, sum(row.is_call for row in written))  # as long as calls are what is short
    for run in runs:
        rows = rows_for(run, written)
        assert len(rows) == len({row.id for row in rows}) == run.size
        assert sum(not row.is_call for row in rows) == round(run.size * run.share)


# --- the rows of a run ------------------------------------------------------------------------------------------------

RUNS = st.builds(
    Run,
    st.just("share"),
    st.sampled_from(sweep.SHARES),
    st.sampled_from(["", *KINDS]),
    st.integers(0, 2**32),
    st.integers(1, 60),
)


@given(RUNS)
def test_rows_have_size_and_share_no_row_twice_and_none_of_the_kind_left_out(run):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the sweep knows that it leaves the lesson's band
        rows = rows_for(run, POOL)
    assert len(rows) == len({row.id for row in rows}) == run.size
    assert abs(sum(not row.is_call for row in rows) - run.size * run.share) <= 0.5
    assert run.left_out not in {row.kind for row in rows}
    assert all(any(row is given for given in POOL) for row in rows)
    assert rows == rows_for(run, list(POOL))


def test_the_other_kinds_fill_the_place_of_the_one_left_out():
    kinds = Counter(row.kind for row in rows_for(Run("left_out", 0.15, "negated", 0, 40), POOL))
    assert kinds.pop("direct") == 34
    assert kinds == dict.fromkeys(set(KINDS) - {"negated"}, 1)


def test_another_seed_draws_other_rows():
    one, two = (rows_for(Run("share", 0.15, "", seed, 40), POOL) for seed in (0, 1))
    assert {row.id for row in one} != {row.id for row in two}


# --- one run ----------------------------------------------------------------------------------------------------------

TEST = [call(1), call(2), negative(1, "chitchat"), negative(2, "chitchat"), negative(3, "steering")]
SAID = [TEST[0].answers[0].to_json(), json.dumps(REFUSAL), TEST[0].answers[0].to_json(), json.dumps(REFUSAL), "oops"]


class Bench:
    """Stands for training and scoring: remembers what it was asked, and makes the same report each time."""

    def __init__(self):
        self.asked, self.folders = [], []

    def train(self, rows, output, base, seed):
        assert base == str(TINY_BASE)
        self.asked.append((seed, [row.id for row in rows]))
        (output / "adapter").write_text("weights")
        return output / "adapter"

    def evaluate(self, adapter):
        assert adapter.read_text() == "weights"
        self.folders.append(adapter.parent)
        return score(SAID, TEST, support_desk())

    @property
    def doubles(self):
        return {"train": self.train, "evaluate": self.evaluate}


@pytest.fixture(autouse=True)
def tiny_base(monkeypatch):
    monkeypatch.setenv("COURSE_BASE", str(TINY_BASE))


def test_a_run_becomes_one_row_of_json_and_leaves_no_folder(tmp_path):
    bench, run = Bench(), Run("left_out", 0.15, "negated", 5, 40)
    row = json.loads(json.dumps(run_one(run, POOL, tmp_path / "work", **bench.doubles), allow_nan=False))
    assert bench.asked == [(5, [example.id for example in rows_for(run, POOL)])]
    assert bench.folders[0].parent == tmp_path / "work"
    assert list((tmp_path / "work").iterdir()) == []
    assert run_of(row) == run
    assert row["rates"]["false_calls_on_no_tool"] == {"hits": 1, "of": 3, "value": 1 / 3, "interval": pytest.approx(wilson(1, 3), abs=1e-6)}
    assert (row["rates"]["missed_calls"]["hits"], row["rates"]["missed_calls"]["of"]) == (1, 2)
    assert row["false_calls"] == {"chitchat": [1, 2], "steering": [0, 1]}
    assert (row["outcomes"]["right call"], row["outcomes"]["false call"], row["outcomes"]["invalid"]) == (1, 1, 1)
    assert sorted(row["fingerprint"]) == ["base", "base_sha256", "data_sha256", "recipe", "test_sha256"]
    assert (row["fingerprint"]["base"], row["fingerprint"]["recipe"]["seed"]) == ("tiny_base", 5)
    assert sorted(row["versions"]) == ["peft", "python", "torch", "transformers", "trl"]
    assert row["machine"] and row["date"] and row["seconds"] >= 0


def test_a_training_that_fails_leaves_no_folder_either(tmp_path):
    def fail(rows, output, base, seed):
        raise RuntimeError("no step changed it")

    with pytest.raises(RuntimeError, match="no step changed it"):
        run_one(Run("share", 0.15, "", 0, 40), POOL, tmp_path, fail, Bench().evaluate)
    assert list(tmp_path.iterdir()) == []


# --- the record -------------------------------------------------------------------------------------------------------

SMALL = {"shares": (0.15, 0.5), "seeds": (0,), "size": 40, "left_out": ("steering",)}
RUNS_OF_SMALL = [Run("share", 0.15, "", 0, 40), Run("share", 0.5, "", 0, 40), Run("left_out", 0.15, "steering", 0, 40)]


@pytest.fixture
def record(tmp_path, monkeypatch):
    """A finished small sweep."""
    monkeypatch.setattr(sweep, "OUTPUTS", tmp_path / "outputs")
    monkeypatch.setattr(sweep, "read_written", lambda: POOL)
    sweep.sweep(tmp_path / "sweep.jsonl", **SMALL, **Bench().doubles)
    return tmp_path / "sweep.jsonl"


def again(record, **options):
    """The runs that another sweep of the same plan does."""
    bench = Bench()
    sweep.sweep(record, **SMALL | options, **bench.doubles)
    return len(bench.asked), [run_of(row) for row in sweep.read_rows(record)]


def edit(record, number, **changes):
    """Change the fingerprint of one row."""
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    rows[number]["fingerprint"] |= changes
    record.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_sweep_writes_a_line_per_run_and_says_what_it_did(record, capsys):
    assert [run_of(json.loads(line)) for line in record.read_text().splitlines()] == RUNS_OF_SMALL
    capsys.readouterr()
    before = record.read_bytes()
    assert again(record) == (0, RUNS_OF_SMALL)
    assert record.read_bytes() == before
    assert capsys.readouterr().out == "0 runs done, 3 skipped because sweep.jsonl had their rows\n"


def test_rows_are_kept_when_a_later_run_fails_and_only_the_others_are_done(record):
    record.unlink()
    bench, done = Bench(), []

    def fail_second(rows, output, base, seed):
        done.append(seed)
        if len(done) == 2:
            raise RuntimeError("killed")
        return bench.train(rows, output, base, seed)

    with pytest.raises(RuntimeError, match="killed"):
        sweep.sweep(record, **SMALL, train=fail_second, evaluate=bench.evaluate)
    assert [run_of(row) for row in sweep.read_rows(record)] == RUNS_OF_SMALL[:1]
    assert again(record) == (2, RUNS_OF_SMALL)


def test_more_seeds_are_added_to_those_that_are_there(record):
    done, runs = again(record, seeds=(0, 1))
    assert done == 3
    assert runs[:3] == RUNS_OF_SMALL and {run.seed for run in runs[3:]} == {1}


@pytest.mark.parametrize("digest", ["base_sha256", "data_sha256", "test_sha256"])
def test_a_stale_row_is_found_dropped_and_done_again(record, digest, capsys):
    assert stale(record, POOL) == []
    edit(record, 0, **{digest: "0" * 64})
    assert stale(record, POOL) == RUNS_OF_SMALL[:1]
    capsys.readouterr()
    assert again(record) == (1, [*RUNS_OF_SMALL[1:], RUNS_OF_SMALL[0]])
    assert "1 of 3 rows leave sweep.jsonl" in capsys.readouterr().out
    assert stale(record, POOL) == []


def test_another_recipe_makes_every_row_stale(record, monkeypatch):
    monkeypatch.setattr(sweep, "recipe_for", lambda base: Recipe(learning_rate=1.0))
    assert stale(record, POOL) == RUNS_OF_SMALL


def test_rows_are_stale_when_what_they_drew_has_changed_or_cannot_be_drawn(record):
    users = {row.id: [run for run in RUNS_OF_SMALL if row in rows_for(run, POOL)] for row in POOL}
    assert {len(runs) for runs in users.values()} == {0, 1, 2, 3}
    for wanted in range(4):
        n = next(n for n, row in enumerate(POOL) if len(users[row.id]) == wanted)
        changed = POOL[n].model_copy(update={"request": POOL[n].request + "!"})
        assert stale(record, [*POOL[:n], changed, *POOL[n + 1 :]]) == users[POOL[n].id]
    assert stale(record, POOL[:60]) == RUNS_OF_SMALL  # not a negative is left


@pytest.mark.parametrize("cut", [1, 2, 200])
def test_half_a_last_line_is_dropped_and_its_run_done_again(record, cut, capsys):
    text = record.read_text()
    record.write_text(text[:-cut])  # the line end alone, the closing brace as well, or much of the row
    capsys.readouterr()
    done, runs = again(record)
    assert (done, runs) == (0 if cut == 1 else 1, RUNS_OF_SMALL)
    assert ("line 3: half a row" in capsys.readouterr().out) == (cut > 1)
    assert len(record.read_text().splitlines()) == 3


def test_damage_elsewhere_is_an_error_that_names_the_line(record):
    first, rest = record.read_text().split("\n", 1)
    record.write_text(first[:-9] + "\n" + rest)
    with pytest.raises(ValueError, match=r"sweep\.jsonl, line 1: not JSON; delete the line"):
        again(record)
    record.write_text('{"share": 0.15}\n' + rest)
    with pytest.raises(ValueError, match=r"sweep\.jsonl, line 1: a row of a sweep has experiment, fingerprint, left_out, "):
        stale(record, POOL)


def test_what_cannot_work_fails_before_anything_is_trained_or_written(record, tmp_path):
    before, bench = record.read_bytes(), Bench()
    with pytest.raises(ValueError, match=r"a share of 15% in 200 rows needs 170 calls and there are 60"):
        sweep.sweep(record, **SMALL | {"size": 200} | bench.doubles)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere to write sweep\.jsonl into"):
        sweep.sweep(tmp_path / "nowhere" / "sweep.jsonl", **SMALL | bench.doubles)
    assert (record.read_bytes(), bench.asked) == (before, [])
    edit(record, 1, base="some/other-base")
    with pytest.raises(ValueError, match="holds runs of the base some/other-base, and these would be of tiny_base: name another file"):
        again(record)


def test_staleness_of_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no sweep at .*gone\.jsonl; make it with: python -m helpers sweep"):
        stale(tmp_path / "gone.jsonl", POOL)


# --- figures ----------------------------------------------------------------------------------------------------------


def wilson(hits, of, z=1.959964):
    """Both ends of Wilson's interval, from the formula."""
    p, spread = hits / of, z * math.sqrt(hits / of * (1 - hits / of) / of + z * z / (4 * of * of))
    return [(p + z * z / (2 * of) + side * spread) / (1 + z * z / of) for side in (-1, 1)]


def row(share, seed, false, missed, kind="", chitchat=0, steering=0, size=40, base="tiny_base"):
    """A row with `false` of 20 false calls, `missed` of 50 missed calls, and false calls of 10 for two kinds."""
    counts = {"false_calls_on_no_tool": (false, 20), "missed_calls": (missed, 50)}
    return {
        "experiment": "left_out" if kind else "share",
        "share": share,
        "left_out": kind,
        "seed": seed,
        "size": size,
        "rates": {name: {"hits": hits, "of": of, "value": hits / of} for name, (hits, of) in counts.items()},
        "false_calls": {"chitchat": [chitchat, 10], "steering": [steering, 10]},
        "fingerprint": {"base": base},
    }


ROWS = [
    row(0.5, 0, 2, 10),
    row(0.0, 0, 20, 0),
    row(0.15, 0, 8, 1, chitchat=3, steering=5),
    row(0.5, 1, 4, 10),
    row(0.0, 1, 20, 0),
    row(0.15, 1, 6, 2, chitchat=2, steering=4),
    row(0.15, 0, 12, 2, kind="steering", chitchat=1, steering=10),
    row(0.15, 1, 14, 2, kind="steering", chitchat=2, steering=9),
    row(0.15, 0, 12, 2, kind="chitchat", chitchat=7, steering=1),
    row(0.15, 1, 12, 2, kind="chitchat", chitchat=8, steering=1),
]


def series(ax):
    """Points and whisker ends of each labelled series: {label: (x and y of each point, [ends across and up])}."""
    found = {}
    for group in (c for c in ax.containers if isinstance(c, ErrorbarContainer)):
        line, _, whiskers = group.lines
        directions = [[segment.tolist() for segment in bars.get_segments()] for bars in whiskers]
        found[group.get_label()] = (line.get_xydata().tolist(), directions)
    return found


def near(values):
    return [pytest.approx(value, abs=1e-6) for value in values]


def test_the_plane_has_a_pooled_point_per_share_with_intervals_both_ways():
    plane, _ = share_sweep(ROWS).axes
    found = series(plane)
    points, (across, up) = found["share within 10%–20%"]
    assert points == [[0.03, 0.35]]
    assert [x for x, _ in across[0]] == pytest.approx(wilson(3, 100), abs=1e-6)
    assert [y for _, y in up[0]] == pytest.approx(wilson(14, 40), abs=1e-6)
    assert found["share outside it"][0] == [[0.0, 1.0], [0.2, 0.15]]


def test_the_plane_joins_the_points_in_order_of_share_names_them_and_shows_each_seed():
    plane, _ = share_sweep(ROWS).axes
    joined = next(line for line in plane.lines if line.get_zorder() == 1)
    assert joined.get_xydata().tolist() == [[0.0, 1.0], [0.03, 0.35], [0.2, 0.15]]
    assert [(text.get_text(), text.xy) for text in plane.texts] == [("0%", (0.0, 1.0)), ("15%", (0.03, 0.35)), ("50%", (0.2, 0.15))]
    seeds = next(line for line in plane.lines if line.get_label() == "single seed")
    assert sorted(seeds.get_xydata().tolist()) == [[0.0, 1.0], [0.0, 1.0], [0.02, 0.4], [0.04, 0.3], [0.2, 0.1], [0.2, 0.2]]


def test_both_rates_stand_against_the_share_with_the_band_shaded():
    _, by = share_sweep(ROWS).axes
    found = series(by)
    assert found["false calls, of no_tool rows"][0] == [[0.0, 1.0], [0.15, 0.35], [0.5, 0.15]]
    assert found["missed calls, of call rows"][0] == [[0.0, 0.0], [0.15, 0.03], [0.5, 0.2]]
    (whiskers,) = found["missed calls, of call rows"][1]
    assert [[y for _, y in ends] for ends in whiskers] == near([wilson(0, 100), wilson(3, 100), wilson(20, 100)])
    (band,) = by.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((0.10, 0.20))


def test_left_out_compares_each_kind_with_and_without_itself():
    (ax,) = left_out(ROWS).axes
    groups = {group.get_label(): group for group in ax.containers if isinstance(group, BarContainer)}
    assert {label: [bar.get_width() for bar in group] for label, group in groups.items()} == {
        "trained with the kind": [5 / 20, 9 / 20],
        "trained without it": [15 / 20, 19 / 20],
    }
    ends = [segment[:, 0].tolist() for segment in groups["trained without it"].errorbar.lines[2][0].get_segments()]
    assert ends == near([wilson(15, 20), wilson(19, 20)])
    assert [text.get_text() for text in ax.texts] == ["5/20", "9/20", "15/20", "19/20"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["chitchat", "steering"]


@pytest.mark.parametrize("draw", [share_sweep, left_out])
def test_a_figure_asks_a_question_names_its_axes_and_is_left_to_its_caller(draw, tmp_path):
    fig = draw(ROWS)
    assert "?" in fig.get_suptitle()
    assert all(ax.get_xlabel() for ax in fig.axes)
    assert plt.get_fignums() == []
    fig.savefig(tmp_path / "figure.png")


@pytest.mark.parametrize(
    ("draw", "rows", "message"),
    [
        (share_sweep, [], "no run of the share experiment"),
        (share_sweep, ROWS[6:], "no run of the share experiment"),
        (left_out, ROWS[:6], "no run of the left-out experiment"),
        (left_out, [*ROWS[:2], *ROWS[6:]], "no run of its reference"),
        (share_sweep, [*ROWS, row(0.1, 0, 1, 1, size=50)], r"differ in \(base, size .*\('tiny_base', 40\), \('tiny_base', 50\)"),
        (left_out, [*ROWS, row(0.15, 2, 1, 1, base="other")], "differ in"),
        (left_out, [*ROWS[:6], row(0.15, 0, 1, 1, kind="steering", size=50)], "the left-out experiment and its reference differ in"),
    ],
)
def test_rows_that_cannot_be_shown_together_are_an_error(draw, rows, message):
    with pytest.raises(ValueError, match=message):
        draw(rows)
    assert plt.get_fignums() == []
