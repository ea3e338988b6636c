"""The README's measured numbers: what the recorded run says, of the data, base and recipe that are here now."""

import json
import statistics

from helpers.examples import load_examples
from helpers.lab import bench, sweep
from helpers.lab.course import copied_line, spread_table
from helpers.models import base_label
from helpers.outcomes import Rate
from helpers.paths import ROOT, SUPPORT_DESK, TINY_BASE
from helpers.recipes import TINY
from helpers.tools import support_desk
from helpers.training import fingerprint

RECORD = json.loads((SUPPORT_DESK / "results.json").read_text(encoding="utf-8"))


def test_the_readme_shows_the_recorded_table_with_machine_and_date():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert spread_table(RECORD["rivals"], RECORD["fine_tuned"]) in readme
    assert copied_line([Rate(**rate) for rate in RECORD["copied_ids"]]) in readme
    assert RECORD["date"] in readme and RECORD["machine"] in readme and RECORD["command"] in readme


def test_the_record_is_of_this_base_data_and_recipe():
    """Stale? Run the record's command with `--json data/support_desk/results.json`, and put its table into the README."""
    now = fingerprint(load_examples("train"), str(TINY_BASE), TINY, support_desk())
    assert {key: RECORD["trained"][key] for key in ("base", "base_sha256", "data_sha256")} == {
        k: now[k] for k in ("base", "base_sha256", "data_sha256")
    }
    assert RECORD["trained"]["recipe"] | {"seed": 0} == now["recipe"]
    assert len(RECORD["seeds"]) == len(RECORD["fine_tuned"]) == 3
    assert RECORD["fine_tuned"][0]["n"] == len(load_examples("test"))


def test_the_record_meets_what_the_course_promises():
    """Medians over seeds. What falls short of them is a step back, whatever it is good for otherwise."""
    median = {
        name: statistics.median(report["rates"][name]["value"] for report in RECORD["fine_tuned"])
        for name in RECORD["fine_tuned"][0]["rates"]
    }
    assert median["valid_tool_call_rate"] >= 0.95
    assert median["tool_name_accuracy"] >= 0.70
    assert median["argument_match_accuracy"] >= 0.60
    assert median["false_calls_on_no_tool"] <= 0.30
    assert median["missed_calls"] <= 0.20


def test_the_readme_shows_the_recorded_ratios_with_machine_and_date():
    """Stale? Run the record's command with `--json data/speed/bench.json`, and put its table into the README."""
    speed = json.loads(bench.RECORD.read_text(encoding="utf-8"))
    assert speed["sources_sha256"] == bench.sources_digest()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert bench.ratio_table(speed) in readme
    assert f"{speed['machine']}, {speed['date']}" in readme and speed["command"] in readme


def test_the_recorded_growth_is_of_these_sources_and_shown_with_its_slopes():
    """Stale? Run the record's command with `--json data/speed/growth.json`, and read notebook 3 again: its text tells of it."""
    grown = json.loads(bench.GROWTH.read_text(encoding="utf-8"))
    assert grown["sources_sha256"] == bench.sources_digest() and grown["base"] == base_label(str(TINY_BASE))
    assert [size["tools"] for size in grown["catalogue"]][:-1] == list(bench.SIZES[:-1])  # the last may be what fits into the base
    assert [number["rows"] for number in grown["rows"]] == list(bench.REQUESTS)
    notebook = (ROOT / "notebooks" / "03_qlora_training.ipynb").read_text(encoding="utf-8")
    assert f"{grown['machine']}, {grown['date']}" in notebook


def test_the_recorded_sweep_is_whole_and_of_this_base_data_and_recipe():
    """Stale? Remove data/support_desk/sweep.jsonl, run `python -m helpers sweep`, and read notebook 3 again: its text tells of it."""
    written = sweep.read_written()
    assert sweep.stale(sweep.RECORD, written) == []
    assert sorted(map(sweep.run_of, sweep.read_rows(sweep.RECORD)), key=str) == sorted(sweep.plan(), key=str)
