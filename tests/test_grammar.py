"""Constrained decoding: what is right stays possible, what is possible parses, on the tiny base's tokenizer and without its model."""

import json
import sys

import pytest
import torch
from transformers import AutoTokenizer

from helpers.examples import load_examples
from helpers.grammar import MAX_ARGUMENT, Grammar, decoding_schema
from helpers.parsing import InvalidOutput, parse_tool_call
from helpers.paths import TINY_BASE
from helpers.tools import Toolset, support_desk

pytest.importorskip("xgrammar")

DESK = support_desk()
TOKENIZER = AutoTokenizer.from_pretrained(str(TINY_BASE))
END = TOKENIZER.eos_token_id
WIDTH = len(TOKENIZER) + 64  # as of a model whose logits are wider than its tokenizer
TEXTS = [TOKENIZER.decode([token]) for token in range(len(TOKENIZER))]
HEADS = [  # what every legal output begins with, up to the first character that is free
    '{"tool":"track_order","arguments":{"order_id":"',
    '{"tool":"request_refund","arguments":{"order_id":"',
    '{"tool":"escalate","arguments":{"reason":"',
    '{"tool":"no_tool","reason":"',
]


@pytest.fixture(scope="module")
def grammar():
    return Grammar(DESK, TOKENIZER, WIDTH)


def write(legal, text, row=0):
    for token in TOKENIZER(text, add_special_tokens=False).input_ids:
        legal.accept(row, token)


def allowed(legal, row=0):
    """The tokens that may come next."""
    return set(legal.only(torch.zeros(1, WIDTH), [row])[0].isfinite().nonzero().flatten().tolist())


# --- what is legal ----------------------------------------------------------------------------------------------------


def test_every_gold_answer_can_be_written_and_then_only_ended(grammar):
    for example in load_examples("test"):
        for answer in example.answers:
            legal = grammar.start(1)
            write(legal, answer.to_json())
            assert allowed(legal) == {END}, example.id
            legal.accept(0, END)


@pytest.mark.parametrize("begun", ["", '{"tool":"', '{"tool":"no_', '{"tool":"escalate","argu', '{"tool":"track_order","arguments":{"'])
def test_what_the_catalogue_forces_leaves_the_tokens_that_go_on_with_it_and_no_other(grammar, begun):
    legal = grammar.start(1)
    write(legal, begun)
    rests = [head.removeprefix(begun) for head in HEADS if head.startswith(begun)]
    assert allowed(legal) == {token for token, text in enumerate(TEXTS) if any(rest.startswith(text) for rest in rests)}


def test_the_logits_of_legal_tokens_stay_and_all_others_become_minus_infinity(grammar):
    legal, logits = grammar.start(1), torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(0))
    before = logits.clone()
    masked = legal.only(logits, [0])
    for token in range(WIDTH):
        text = TEXTS[token] if token < len(TEXTS) else None
        fits = text is not None and any(head.startswith(text) for head in HEADS)
        assert masked[0, token] == (logits[0, token] if fits else -torch.inf), (token, text)
    assert torch.equal(logits, before)
    assert torch.equal(legal.only(logits.bfloat16(), [0]).isfinite(), masked.isfinite())


def test_each_row_is_where_it_was_led(grammar):
    legal = grammar.start(3)
    write(legal, '{"tool":"no_', row=2)
    write(legal, '{"tool":"esc', row=0)
    apart = [allowed(legal, row) for row in (2, 1, 0)]
    together = legal.only(torch.zeros(3, WIDTH), [2, 1, 0]).isfinite()
    assert [set(line.nonzero().flatten().tolist()) for line in together] == apart
    assert {TEXTS[token][:1] for token in apart[0]} == {"t"}
    assert {TEXTS[token][:1] for token in apart[1]} == {"{"}
    assert {TEXTS[token][:1] for token in apart[2]} == {"a"}


# --- what is free -----------------------------------------------------------------------------------------------------


def walk(grammar, rows, seed):
    """Random legal outputs, by random logits: the later the row, the likelier a quote, and so the shorter its arguments."""
    torch.manual_seed(seed)
    quotes = torch.tensor([float('"' in text) for text in TEXTS] + [0.0] * (WIDTH - len(TEXTS)))
    liking = torch.linspace(1, 5, rows)[:, None] * quotes
    legal, taken, alive = grammar.start(rows), [[] for _ in range(rows)], list(range(rows))
    while alive:
        tokens = legal.only(torch.randn(len(alive), WIDTH) + liking[alive], alive).argmax(-1).tolist()
        for row, token in zip(alive, tokens, strict=True):
            legal.accept(row, token)
            taken[row].append(token)
        alive = [row for row in alive if taken[row][-1] != END]
    return taken


def test_random_legal_walks_end_and_parse_unless_an_argument_is_blank(grammar):
    taken = walk(grammar, rows=80, seed=0)
    assert max(map(len, taken)) <= 200
    decisions = [parse_tool_call(TOKENIZER.decode(tokens, skip_special_tokens=True), DESK) for tokens in taken]
    invalid = [decision for decision in decisions if isinstance(decision, InvalidOutput)]
    for decision in invalid:
        output = json.loads(decision.text)
        strings = list(output.get("arguments", {"reason": output.get("reason")}).values())
        assert not all(text.strip() for text in strings), decision
    assert len(invalid) <= 8
    assert {decision.tool for decision in decisions} >= {"track_order", "request_refund", "escalate", "no_tool"}


def test_a_blank_argument_is_legal_to_the_grammar_and_refused_by_the_parser(grammar):
    legal, text = grammar.start(1), '{"tool":"escalate","arguments":{"reason":"  "}}'
    write(legal, text)
    assert allowed(legal) == {END}
    assert parse_tool_call(text, DESK).problem == "bad_arguments"


def test_no_control_character_gets_into_an_argument(grammar):
    legal = grammar.start(1)
    write(legal, '{"tool":"escalate","arguments":{"reason":"the drill')
    controls = {token for token, text in enumerate(TEXTS) if any(ord(character) < 32 for character in text)}
    assert len(controls) >= 32  # each of them is a token of its own
    assert not allowed(legal) & controls
    assert {TEXTS[token] for token in allowed(legal)} >= {" ", "x", "'", "{", '"'}


@pytest.mark.parametrize("wrong", ['"', "\\", "\n"])
def test_what_json_escapes_cannot_be_written_in_an_argument(grammar, wrong):
    legal = grammar.start(1)
    with pytest.raises(RuntimeError):
        write(legal, json.dumps({"tool": "escalate", "arguments": {"reason": f"a{wrong}b"}}, separators=(",", ":")))


def test_an_argument_may_have_1_to_300_characters(grammar):
    for length, fits in ((0, False), (1, True), (300, True), (301, False)):
        legal = grammar.start(1)
        try:
            write(legal, HEADS[2] + "x" * length + '"}}')
        except RuntimeError:
            assert not fits, length
        else:
            assert fits, length
    assert MAX_ARGUMENT == 300


def test_a_token_that_is_not_legal_is_refused_by_number(grammar):
    legal = grammar.start(1)
    wrong = TOKENIZER("[", add_special_tokens=False).input_ids[0]
    with pytest.raises(RuntimeError, match=rf"token {wrong} is not legal here; take one of those that only\(\) leaves"):
        legal.accept(0, wrong)
    with pytest.raises(RuntimeError, match=f"token {END} is not legal here"):
        legal.accept(0, END)


# --- the schema, and the package it needs -----------------------------------------------------------------------------


def test_the_schema_for_decoding_bounds_every_free_string_and_no_other():
    fields = {
        "free": {"type": "string"},
        "short": {"type": "string", "maxLength": 20, "pattern": "^[A-Z]+$"},
        "long": {"type": "string", "maxLength": 5000},
        "chosen": {"type": "string", "enum": ["a", "b"]},
        "count": {"type": "integer", "minimum": 1},
        "many": {"type": "array", "items": {"type": "string"}},
    }
    toolset = Toolset.from_mcp([{"name": "t", "inputSchema": {"type": "object", "properties": fields, "required": ["free"]}}])
    call, refusal = decoding_schema(toolset)["anyOf"]
    assert call["properties"]["arguments"]["properties"] == {
        "free": {"type": "string", "minLength": 1, "maxLength": 300},
        "short": {"type": "string", "maxLength": 20},
        "long": {"type": "string", "maxLength": 300},
        "chosen": {"type": "string", "enum": ["a", "b"]},
        "count": {"type": "integer", "minimum": 1},
        "many": {"type": "array", "items": {"type": "string", "maxLength": 300}},
    }
    assert refusal["properties"]["reason"] == {"type": "string", "minLength": 1, "maxLength": 300}
    assert "pattern" in json.dumps(toolset.output_schema())  # the catalogue itself is as it was


def test_without_xgrammar_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "xgrammar", None)
    with pytest.raises(RuntimeError, match="constrained decoding needs the package xgrammar: pip install xgrammar"):
        Grammar(DESK, TOKENIZER, WIDTH)
