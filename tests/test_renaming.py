"""Renamed catalogues and rows: the same tools and answers under other names, and nothing else changed."""

import pytest

from helpers.evaluation import score
from helpers.examples import Example, check_target, load_examples
from helpers.negatives import reason_for
from helpers.renaming import KEPT_BACK, TAUGHT, Renaming, draw_renamings
from helpers.tools import support_desk

NAMES = {"escalate": "to_human", "track_order": "parcel_lookup", "order_id": "reference"}


def row(target, kind="direct") -> Example:
    return Example.model_validate({"id": "r", "request": "where is A-12?", "target": target, "kind": kind})


def test_the_catalogue_keeps_descriptions_and_takes_names_and_order():
    lines = Renaming(NAMES).catalogue(support_desk()).system_prompt().split("\n")[1:4]
    assert lines == [
        "- to_human(reason: str): Hand the conversation to a person.",
        "- parcel_lookup(reference: str): Get the status of an order.",
        "- request_refund(reference: str, reason: str): File a refund for an order.",
    ]


def test_a_refund_stays_irreversible_under_another_name():
    catalogue = Renaming({"request_refund": "repay"}).catalogue(support_desk())
    assert [catalogue[name].irreversible for name in catalogue.names] == [True, False, False]


def test_a_call_goes_by_the_new_names_and_so_do_the_other_answers():
    gold = {"tool": "track_order", "arguments": {"order_id": "A-12"}, "accept": [{"tool": "escalate", "arguments": {"reason": "where is"}}]}
    renamed = Renaming(NAMES).example(row(gold))
    assert [answer.to_json() for answer in renamed.answers] == [
        '{"tool":"parcel_lookup","arguments":{"reference":"A-12"}}',
        '{"tool":"to_human","arguments":{"reason":"where is"}}',
    ]
    assert renamed.request == "where is A-12?"


def test_a_refusal_names_what_is_missing_by_its_new_name():
    gold = {"tool": "no_tool", "reason": reason_for("underspecified", "track_order", ["order_id"])}
    assert Renaming(NAMES).example(row(gold, "underspecified")).target.reason == "need reference before parcel_lookup"


@pytest.mark.parametrize("kept_back", [False, True])
def test_right_answers_stay_right_under_every_renaming(kept_back):
    desk, rows = support_desk(), load_examples("validation")
    for renaming in draw_renamings(4, seed=1, kept_back=kept_back):
        catalogue, renamed = renaming.catalogue(desk), [renaming.example(example) for example in rows]
        for example in renamed:
            check_target(example, catalogue)
        right = score([example.answers[0].to_json() for example in renamed], renamed, catalogue)
        assert right.exact_accuracy.value == 1
        old = score([example.answers[0].to_json() for example in rows], renamed, catalogue)
        assert old.exact_accuracy.hits == sum(not example.is_call for example in rows)  # the old names are wrong now


def test_draws_are_seeded_and_different():
    drawn = draw_renamings(8, seed=3)
    assert drawn == draw_renamings(8, seed=3) != draw_renamings(8, seed=4)
    assert len({tuple(renaming.names.items()) for renaming in drawn}) == 8


def test_more_renamings_than_there_are_is_an_error(monkeypatch):
    monkeypatch.setattr("helpers.renaming.TAUGHT", {"escalate": ("to_human", "to_staff")})
    assert len(draw_renamings(2)) == 2
    with pytest.raises(ValueError, match="not 3 different renamings to draw; found 2"):
        draw_renamings(3)


def test_no_name_is_both_taught_and_kept_back():
    for name, taught in TAUGHT.items():
        assert not {name, *taught} & set(KEPT_BACK[name])
    assert TAUGHT.keys() == KEPT_BACK.keys()
