"""The support desk's rows: schema, labelling convention, shares, and no leak from training into test."""

import re
import runpy
from collections import Counter

import pytest

from helpers.examples import CALL_KINDS, audit_labels, audit_leakage, id_format, load_examples, read_examples
from helpers.negatives import KINDS, no_tool_share, reason_for, share_table
from helpers.parsing import ToolCall
from helpers.paths import ROOT, SUPPORT_DESK
from helpers.tools import support_desk

SPLITS = {split: load_examples(split) for split in ("train", "validation", "test")}
BUILD = runpy.run_path(str(SUPPORT_DESK / "build.py"))
WRITTEN, NEW_FORMATS = BUILD["read_sources"]()
ATTACKS = read_examples(SUPPORT_DESK / "injection.jsonl", support_desk())


@pytest.mark.parametrize(("split", "least"), [("train", 600), ("validation", 120), ("test", 240)])
def test_splits_are_large_enough(split, least):
    assert len(SPLITS[split]) >= least


def test_shares_of_no_tool():
    assert no_tool_share(SPLITS["train"]) == pytest.approx(0.18)
    assert no_tool_share(SPLITS["validation"]) == pytest.approx(0.30, abs=0.02)
    assert no_tool_share(SPLITS["test"]) == pytest.approx(0.30, abs=0.02)


@pytest.mark.parametrize("split", SPLITS)
def test_every_kind_is_known_and_every_kind_of_negative_is_there(split):
    table = share_table(SPLITS[split])
    fewest = {"train": 25, "validation": 1, "test": 10}[split]  # different rows that the course promises of each kind
    assert set(table) == {"call", *KINDS} and min(table.values()) >= fewest
    assert {row.kind for row in SPLITS[split] if row.is_call} == set(CALL_KINDS)


@pytest.mark.parametrize("rows", [*SPLITS.values(), WRITTEN], ids=[*SPLITS, "written"])
def test_every_argument_is_a_verbatim_stretch_and_no_request_has_two_targets(rows):
    assert audit_labels(rows) == []


@pytest.mark.parametrize("rows", [*SPLITS.values(), WRITTEN], ids=[*SPLITS, "written"])
def test_arguments_have_clean_edges(rows):
    for row in rows:
        if row.is_call:
            for value in row.target.arguments.values():
                assert value == value.strip(" .,!?;:\"'()#"), row.id


@pytest.mark.parametrize(
    ("seen", "held_out"),
    [
        (SPLITS["train"], SPLITS["validation"] + SPLITS["test"]),
        (WRITTEN, SPLITS["validation"] + SPLITS["test"]),
        (SPLITS["validation"], SPLITS["test"]),
        (SPLITS["train"] + SPLITS["validation"] + SPLITS["test"], ATTACKS),
    ],
    ids=["train", "written", "validation", "attacks"],
)
def test_no_frame_id_or_near_duplicate_is_shared(seen, held_out):
    assert audit_leakage(seen, held_out) == []


def test_attacks_are_many_of_many_sorts_and_label_their_calls_verbatim():
    sorts = Counter(row.id.split("-")[1] for row in ATTACKS)
    assert len(sorts) >= 8 and min(sorts.values()) >= 8
    assert audit_labels(ATTACKS) == []
    assert all(any(not isinstance(answer, ToolCall) for answer in row.answers) for row in ATTACKS)  # refusing is always right


@pytest.mark.parametrize("split", SPLITS)
def test_reasons_of_negatives_are_the_taught_ones(split):
    gaps = set()
    for row in SPLITS[split]:
        if not row.is_call and row.kind != "underspecified":
            assert row.target.reason == reason_for(row.kind)
        elif not row.is_call:
            gaps.add(row.target.reason)
    assert gaps == {
        reason_for("underspecified", "track_order", ["order_id"]),
        reason_for("underspecified", "request_refund", ["order_id"]),
        reason_for("underspecified", "request_refund", ["reason"]),
        reason_for("underspecified", "request_refund", ["order_id", "reason"]),
        reason_for("underspecified", "escalate", ["reason"]),
    }


def test_train_is_what_its_script_builds():
    assert [row.model_dump(exclude_defaults=True) for row in SPLITS["train"]] == BUILD["build"](WRITTEN, NEW_FORMATS)


def test_the_new_ids_are_of_formats_that_no_other_row_has():
    new = [row.target.arguments["order_id"] for row in read_examples(SUPPORT_DESK / "ids.jsonl", support_desk())]
    calls = [row for split in (WRITTEN, *SPLITS.values()) for row in split if row.is_call]
    known = {row.target.arguments.get("order_id", "") for row in calls}
    shapes = Counter(map(id_format, new))
    assert len(new) == len(set(new)) >= 200 and len(shapes) >= 10 and min(shapes.values()) >= 10
    assert not set(shapes) & set(map(id_format, known))


def test_the_base_was_taught_no_customer_support():
    """Neither its tools nor the intents beside them speak of refunds, parcels, escalation or order tracking."""
    names = ("tools.jsonl", "words.jsonl", "frames.jsonl", "phrases.jsonl", "intents.jsonl")
    taught = "".join((ROOT / "data" / "tiny_base" / name).read_text(encoding="utf-8") for name in names)
    words = r"refund|parcel|escalat\w*|track_order|order_status|order tracking|customer (?:support|service)|human agent"
    assert re.findall(rf"\b(?:{words})\b", taught, re.IGNORECASE) == []
