"""Drafts: what a perfect drafter would have to guess, on every gold answer; and that odd beginnings give none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.drafting import Drafter
from helpers.examples import load_examples
from helpers.tools import support_desk

DRAFTER = Drafter(support_desk())
REQUEST = "Hi, it's about #KX-4471. The lid is cracked. Please refund me."


@pytest.mark.parametrize(
    ("written", "draft"),
    [
        ("", '{"tool":"'),
        ('{"to', 'ol":"'),
        ('{"tool":"', ""),  # three tools and no_tool are possible
        ('{"tool":"e', 'scalate","arguments":{"reason":"'),
        ('{"tool":"request_refund"', ',"arguments":{"order_id":"KX-4471","reason":"'),
        ('{"tool":"request_refund","arguments":{"order_id":"KX', '-4471","reason":"'),
        ('{"tool":"request_refund","arguments":{"order_id":"KX-4471","reason":"The', ' lid is cracked"}}'),
        ('{"tool":"track_order","arguments":{"order_id":"KX-4471"}', "}"),
        ('{"tool":"no_tool","reason":"not', ' asked for now"}'),
        ('{"tool":"no_tool","reason":"n', ""),  # several reasons begin so
        ('{"tool":"no_tool","reason":"xyz', ""),
        ('{"tool":"nothing_known', ""),
        ('{"tool":"escalate","arguments":{"reason":"words that are not there', ""),
        ("Sure! {", ""),
        ('{"tool":"escalate","arguments":{"reason":"half an escape \\', ""),
        ('{"tool":"escalate","arguments":{"other":"', ""),
    ],
)
def test_literal_drafts(written, draft):
    assert DRAFTER.draft(written, REQUEST) == draft


def test_quotes_and_backslashes_are_escaped_in_drafts():
    assert DRAFTER.draft('{"tool":"escalate","arguments":{"reason":"a', r'a "b\c" d') == r' \"b\\c\" d"}}'


def test_gold_answers_need_few_guesses():
    """Simulated decoding: one character is given wherever the draft is wrong. Half of all outputs come in at most four steps."""
    steps = []
    for example in load_examples("test"):
        gold, written, count = example.answers[0].to_json(), "", 0
        while written != gold:
            draft = DRAFTER.draft(written, example.request)
            held = next((n for n, (a, b) in enumerate(zip(draft, gold[len(written) :], strict=False)) if a != b), len(draft))
            written += gold[len(written) :][: min(held, len(gold) - len(written)) + 1]
            count += 1
        steps.append(count)
    assert sorted(steps)[len(steps) // 2] <= 4 and sum(steps) <= 8 * len(steps)


@given(st.text(), st.text())
def test_any_beginning_of_any_request_gives_a_string(written, request):
    assert isinstance(DRAFTER.draft(written, request), str)
    assert isinstance(DRAFTER.draft('{"tool":"request_refund","arguments":{"order_id":' + written, request), str)
