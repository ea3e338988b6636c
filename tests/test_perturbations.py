"""Perturbations: noise beside the arguments, the same from run to run, and nothing lost."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.examples import Example, audit_labels, load_examples
from helpers.perturbations import CHANGES, EMOJI, LONG, ZERO_WIDTH, emoji, padded, perturb, spacing, typos, zero_width

ROW = Example.model_validate(
    {
        "id": "r-1",
        "request": "Refund for AB-12 please, the red lamp of AB-12 is broken, thanks",
        "target": {"tool": "request_refund", "arguments": {"order_id": "AB-12", "reason": "the red lamp of AB-12 is broken"}},
        "kind": "direct",
    }
)


def test_arguments_stay_to_the_letter_and_the_rest_changes():
    (row,) = perturb([ROW], CHANGES["upper case"])
    assert row.request == "REFUND FOR AB-12 PLEASE, the red lamp of AB-12 is broken, THANKS"
    assert (row.id, row.target, row.kind) == ("r-1~", ROW.target, "direct")


@pytest.mark.parametrize("name", CHANGES)
def test_every_perturbed_test_row_still_holds_its_arguments(name):
    rows = perturb(load_examples("test"), CHANGES[name])
    assert audit_labels(rows) == []
    assert len(rows) == len(load_examples("test"))


@pytest.mark.parametrize("name", CHANGES)
def test_a_seed_gives_the_same_rows_whatever_stands_beside_them(name):
    rows = load_examples("test")[:20]
    assert perturb(rows, CHANGES[name])[7:9] == perturb(rows[7:9], CHANGES[name])


def test_another_seed_gives_other_typos():
    rows = load_examples("test")[:20]
    assert perturb(rows, typos, seed=0) != perturb(rows, typos, seed=1)


@given(st.text(), st.integers())
def test_only_invisible_signs_emoji_and_blanks_are_added(text, seed):
    hidden = zero_width(text, random.Random(seed))
    assert [c for c in hidden if c not in ZERO_WIDTH] == [c for c in text if c not in ZERO_WIDTH]
    assert spacing(text, random.Random(seed)).split() == text.split()
    shown = emoji(text, random.Random(seed))
    for sign in EMOJI:
        shown = shown.replace(" " + sign, "")
    assert shown == text or any(sign in text for sign in EMOJI)


def test_typos_are_few_and_real():
    text = "I would like my money back because the kettle leaks all over the kitchen"
    written = {typos(text, random.Random(seed)) for seed in range(20)}
    assert len(written) >= 18
    assert all(abs(len(w) - len(text)) <= 12 for w in written)


def test_padding_makes_a_message_of_ten_thousand_characters():
    assert LONG - 100 < len(padded("where is B-7781", random.Random(0))) <= LONG + 20
    assert padded("where is B-7781", random.Random(0)).endswith("where is B-7781")
