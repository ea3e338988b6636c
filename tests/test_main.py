"""The shell's door: every command for real, and errors as one line."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.__main__ import main
from helpers.evaluation import score
from helpers.examples import load_examples, read_examples, write_examples
from helpers.lab import bench, course, fit, sweep
from helpers.paths import TINY_BASE
from helpers.tools import support_desk


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    write_examples(path, [example.model_dump(exclude_defaults=True) for example in load_examples("train")[:32]])
    return path


@pytest.fixture(scope="module")
def adapter(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    assert main(["train", "--output", str(folder), "--data", str(rows), "--base", str(TINY_BASE)]) == 0
    return folder


def test_evaluate_scores_any_file_and_writes_json_and_rows(adapter, rows, tmp_path, capsys):
    assert (
        main(
            [
                "evaluate",
                "--adapter",
                str(adapter),
                "--data",
                str(rows),
                "--json",
                str(tmp_path / "r.json"),
                "--rows",
                str(tmp_path / "r.csv"),
            ]
        )
        == 0
    )
    assert "valid tool call rate" in capsys.readouterr().out
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["n"] == 32 and sum(report["outcomes"].values()) == 32
    with (tmp_path / "r.csv").open(newline="", encoding="utf-8") as file:
        assert [row["id"] for row in csv.DictReader(file)] == [example.id for example in load_examples("train")[:32]]


def test_route_prints_a_decision_for_each_request(adapter, capsys):
    assert main(["route", "--adapter", str(adapter), "Where is ORD-1234?", "Hi!"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.split("(")[0] in {"ToolCall", "NoTool", "InvalidOutput"} for line in lines)


def test_course_measures_before_and_after_and_keeps_the_record(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(course, "load_examples", lambda split: load_examples(split)[:24])
    monkeypatch.setattr(course, "read_examples", lambda path, toolset: read_examples(path, toolset)[:8])
    monkeypatch.setattr(course, "default_base", lambda: str(TINY_BASE))
    monkeypatch.setattr(course, "OUTPUTS", tmp_path / "outputs")
    assert main(["course", "--seeds", "0", "1", "--json", str(tmp_path / "record.json")]) == 0
    shown, record = capsys.readouterr().out, json.loads((tmp_path / "record.json").read_text())
    assert "fine-tuned, seed 1" in shown and course.spread_table(record["rivals"], record["fine_tuned"]) in shown
    assert [report["n"] for report in (*record["rivals"], *record["fine_tuned"])] == [24] * 5
    assert {"command", "machine", "versions", "date", "trained"} <= record.keys()
    assert [rate["of"] for rate in record["copied_ids"]] == [8, 8] and "noise: no more than seeds differ" in shown


def test_a_change_smaller_than_the_spread_of_the_seeds_is_noise():
    rows = load_examples("validation")[:40]
    right, wrong = [row.answers[0].to_json() for row in rows], "nothing"
    rival, *after = (score(right[:n] + [wrong] * (40 - n), rows, support_desk()) for n in (20, 18, 22, 24))
    valid = course.seed_differences(rival, after)[0]
    assert valid == "valid_tool_call_rate: +0.050 (-0.050 to +0.100), noise: no more than seeds differ"
    rival = score([wrong] * 40, rows, support_desk())
    assert course.seed_differences(rival, after)[0] == "valid_tool_call_rate: +0.550 (+0.450 to +0.600), more than seeds differ"


def test_bench_takes_ratios_or_growth(monkeypatch, tmp_path):
    asked = []
    for name in ("run", "growth"):
        monkeypatch.setattr(bench, name, lambda args, name=name: asked.append((name, args.rows, args.repeats, args.most_stock, args.json)))
    assert main(["bench", "--rows", "32", "--json", "-"]) == 0
    assert main(["bench", "--growth", "--repeats", "1", "--most-stock", "1000", "--json", str(tmp_path / "growth.json")]) == 0
    assert asked == [("run", 32, 3, 300, Path("-")), ("growth", None, 1, 1000, tmp_path / "growth.json")]


def test_sweep_goes_on_with_its_record_unless_another_is_named(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(sweep, "sweep", lambda path, **choices: asked.append((path, choices)))
    assert main(["sweep"]) == 0
    assert main(["sweep", "--seeds", "3", "--size", "90", "--output", str(tmp_path / "mine.jsonl")]) == 0
    assert asked == [(sweep.RECORD, {"seeds": [0, 1, 2], "size": None}), (tmp_path / "mine.jsonl", {"seeds": [3], "size": 90})]


def test_fit_takes_a_file_for_its_record(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(fit, "fit", asked.append)
    assert main(["fit"]) == main(["fit", "--json", str(tmp_path / "fit.json")]) == 0
    assert asked == [None, tmp_path / "fit.json"]


def test_what_the_user_can_mend_is_one_line_and_exit_code_2(tmp_path, capsys):
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"id": "1"\n')
    for arguments, said in (
        (["evaluate", "--data", str(tmp_path / "gone.jsonl")], "no data file"),
        (["evaluate", "--data", str(broken)], "broken.jsonl, line 1"),
        (["evaluate", "--adapter", str(tmp_path)], "no adapter in"),
        (["course", "--json", str(tmp_path / "gone" / "record.json")], "there is no folder"),
        (["bench", "--json", str(tmp_path / "gone" / "record.json")], "there is no folder"),
        (["fit", "--json", str(tmp_path / "gone" / "record.json")], "there is no folder"),
        (["bench", "--rows", "20", "--json", "-"], "--rows must be a multiple of 16, got 20"),
        (["bench", "--growth", "--rows", "0"], "--rows must be at least 1, got 0"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert said in error and error.startswith("error: ")


def test_the_package_itself_imports_no_torch():
    code = "import sys, helpers, helpers.tools, helpers.parsing, helpers.examples, helpers.negatives; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
