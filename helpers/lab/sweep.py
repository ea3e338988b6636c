"""The share of negatives, and the kinds of negative, as experiments: one JSON row per run."""

import dataclasses
import hashlib
import json
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from helpers.evaluation import FourNumberReport, score
from helpers.examples import Example, load_examples, read_examples
from helpers.models import base_label, default_base
from helpers.negatives import KINDS, mix
from helpers.paths import OUTPUTS, SUPPORT_DESK, TINY_BASE
from helpers.recipes import Recipe, recipe_for
from helpers.routing import Router
from helpers.tools import support_desk
from helpers.training import fingerprint, run_record, train

RECORD = SUPPORT_DESK / "sweep.jsonl"
SHARES = (0.0, 0.05, 0.10, 0.15, 0.20, 0.30, 0.50)
SEEDS = (0, 1, 2)
REFERENCE_SHARE = 0.15  # of every left-out run, and of the run that it is compared with
MAX_SIZE = 1000  # a run takes about a quarter of the time of the course's fine-tune, and there are dozens


@dataclass(frozen=True)
class Run:
    """One fine-tune: the share of negatives among its `size` rows, and the kind that they must not hold ("" for none)."""

    experiment: str  # "share" or "left_out"
    share: float
    left_out: str
    seed: int
    size: int

    def __str__(self) -> str:
        without = f" without {self.left_out}" if self.left_out else ""
        return f"{self.share:.0%} negatives{without}, seed {self.seed}"


def read_written() -> list[Example]:
    """Every hand-written row of the support desk, the pool that all runs draw from."""
    return read_examples(SUPPORT_DESK / "written.jsonl", support_desk())


def largest_size(written: Sequence[Example], shares: Sequence[float] = SHARES, left_out: Sequence[str] = tuple(KINDS)) -> int:
    """The most rows, up to MAX_SIZE, with which every share and every left-out run can be drawn without using a row twice."""
    calls = sum(row.is_call for row in written)
    negatives = Counter(row.kind for row in written if not row.is_call)
    without = negatives.total() - max((negatives[kind] for kind in left_out), default=0)
    pools = [*((share, negatives.total()) for share in shares), (REFERENCE_SHARE, without)]

    def possible(size: int) -> bool:
        return all(round(size * share) <= there and size - round(size * share) <= calls for share, there in pools)

    return next(size for size in range(MAX_SIZE, -1, -1) if possible(size))


def plan(
    shares: Sequence[float] = SHARES, seeds: Sequence[int] = SEEDS, size: int | None = None, left_out: Sequence[str] = tuple(KINDS)
) -> list[Run]:
    """Every run of both experiments once, seed by seed, so that a sweep that is stopped early has whole seeds.

    `size` is the rows of each run, by default `largest_size` of the written rows. The run at 15% is always there: with the same
    rows in number and share, and no kind left out, it is the reference of the left-out runs. Raises ValueError on an unknown kind.
    """
    if unknown := [kind for kind in left_out if kind not in KINDS]:
        raise ValueError(f"{unknown[0]!r} is no kind of negative to leave out; the kinds are {', '.join(KINDS)}")
    size = largest_size(read_written(), shares, left_out) if size is None else size
    runs = []
    for seed in seeds:
        runs += [Run("share", share, "", seed, size) for share in sorted({*shares, REFERENCE_SHARE})]
        runs += [Run("left_out", REFERENCE_SHARE, kind, seed, size) for kind in left_out]
    return list(dict.fromkeys(runs))


def rows_for(run: Run, written: Sequence[Example]) -> list[Example]:
    """The training rows of a run, drawn by its seed; the other kinds fill the place of the one left out.

    Raises ValueError when `written` holds too few calls or negatives.
    """
    calls = [row for row in written if row.is_call]
    negatives = [row for row in written if not row.is_call and row.kind != run.left_out]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # shares outside the lesson's band are what the experiment asks about
        return mix(calls, negatives, run.share, seed=run.seed, size=run.size)


def evaluate(adapter: Path) -> FourNumberReport:
    """The report of an adapter on the test split."""
    test = load_examples("test")
    outputs = Router.from_pretrained(adapter=adapter).generate([example.request for example in test])
    return score(outputs, test, support_desk())


def run_one(
    run: Run,
    written: Sequence[Example],
    work: Path,
    train: Callable[..., Path] = train,
    evaluate: Callable[[Path], FourNumberReport] = evaluate,
) -> dict[str, Any]:
    """Fine-tune the base as `run` says, in a folder under `work` that is deleted afterwards, and score the test split.

    The row for the record: the run's fields, `rates` and `outcomes` as in a report, `false_calls` (kind of negative ->
    [hits, of]), `fingerprint`, where and with what it was made, and `seconds` for training and scoring together.
    """
    base, started = default_base(), time.monotonic()
    made_from = _fingerprint(run, written, base, recipe_for(base))  # before the training, which takes what lies there now
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        report = evaluate(train(rows_for(run, written), Path(folder), base, seed=run.seed))
    measured = report.to_dict()
    false_calls = {kind: of_kind.false_calls_on_no_tool for kind, of_kind in report.per_kind().items()}
    return {
        **dataclasses.asdict(run),
        "rates": measured["rates"],
        "false_calls": {kind: [rate.hits, rate.of] for kind, rate in false_calls.items() if rate.of},
        "outcomes": measured["outcomes"],
        "fingerprint": made_from,
        **run_record(),
        "seconds": round(time.monotonic() - started, 1),
    }


def sweep(
    path: Path = RECORD,
    shares: Sequence[float] = SHARES,
    seeds: Sequence[int] = SEEDS,
    size: int | None = None,
    left_out: Sequence[str] = tuple(KINDS),
    train: Callable[..., Path] = train,
    evaluate: Callable[[Path], FourNumberReport] = evaluate,
) -> None:
    """Do every run of the plan whose row is not in `path` yet, and append each row as soon as it is there.

    Stopped at any time, it goes on where it was. Stale rows leave the file, so that it never mixes two states of the repository.
    Raises, before anything is trained, FileNotFoundError when there is no folder for `path`, and ValueError when the file is
    damaged, when it holds runs of another base, and when a run needs more rows than are written.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} into")
    written, runs = read_written(), plan(shares, seeds, size, left_out)
    found, base = read_rows(path) if path.is_file() else [], base_label(default_base())
    if others := sorted({row["fingerprint"]["base"] for row in found} - {base}):
        raise ValueError(f"{path} holds runs of the base {others[0]}, and these would be of {base}: name another file, or set COURSE_BASE")
    dropped = _stale(found, written)
    held = [row for row in found if run_of(row) not in dropped]
    done = {run_of(row) for row in held}
    todo = [run for run in runs if run not in done]
    for run in todo:
        rows_for(run, written)  # what cannot be drawn fails now, not hours later
    if dropped:
        print(f"{len(dropped)} of {len(found)} rows leave {path.name}: their base, recipe, training or test rows have changed since")
    _write(path, held)
    with tqdm(todo, desc="sweep", unit="run") as bar:
        for run in bar:
            bar.set_postfix_str(str(run))
            row = run_one(run, written, OUTPUTS / "sweep", train, evaluate)
            with path.open("a", encoding="utf-8") as file:
                file.write(_line(row))
    print(f"{len(todo)} runs done, {len(runs) - len(todo)} skipped because {path.name} had their rows")


def stale(path: Path, written: Sequence[Example]) -> list[Run]:
    """The runs in `path` that were made from another base, recipe, training or test data than is here now.

    Raises FileNotFoundError when there is no such file, and ValueError when it is damaged.
    """
    return _stale(read_rows(path), written)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a sweep. A last line that was only half written, by a run that was killed, is left out with a message.

    Raises FileNotFoundError, or ValueError naming the line that is no row of a sweep.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no sweep at {path}; make it with: python -m helpers sweep")
    lines = [(number, line) for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1) if line.strip()]
    needed = {field.name for field in dataclasses.fields(Run)} | {"fingerprint"}
    rows = []
    for number, line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            if number == lines[-1][0]:
                print(f"{path.name}, line {number}: half a row, of a run that was killed; it is left out")
                continue
            raise ValueError(f"{path}, line {number}: not JSON; delete the line, and its run is done again") from None
        if not isinstance(row, dict) or not row.keys() >= needed:
            raise ValueError(f"{path}, line {number}: a row of a sweep has {', '.join(sorted(needed))}; delete the line")
        rows.append(row)
    return rows


def run_of(row: dict[str, Any]) -> Run:
    """The run that a row is the result of."""
    return Run(**{field.name: row[field.name] for field in dataclasses.fields(Run)})


def _stale(rows: Sequence[dict[str, Any]], written: Sequence[Example]) -> list[Run]:
    tiny = base_label(str(TINY_BASE))  # the tiny base lies where the repository stands now
    bases = {label: str(TINY_BASE) if label == tiny else label for label in {row["fingerprint"]["base"] for row in rows}}
    recipes = {label: recipe_for(base) for label, base in bases.items()}
    found = []
    for row in rows:
        run, label = run_of(row), row["fingerprint"]["base"]
        try:
            holds = row["fingerprint"] == _fingerprint(run, written, bases[label], recipes[label])
        except ValueError:  # there are too few rows by now to draw this run
            holds = False
        if not holds:
            found.append(run)
    return found


def _fingerprint(run: Run, written: Sequence[Example], base: str, recipe: Recipe) -> dict[str, Any]:
    """What the row of a run depends on: base, recipe, and the rows that it trains on and is scored on."""
    made_from = fingerprint(rows_for(run, written), base, dataclasses.replace(recipe, seed=run.seed), support_desk())
    return made_from | {"test_sha256": hashlib.sha256((SUPPORT_DESK / "test.jsonl").read_bytes()).hexdigest()}


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The file with these rows alone; in one step, so that a kill costs no row."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text("".join(map(_line, rows)), encoding="utf-8")
    fresh.replace(path)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"
