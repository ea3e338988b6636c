"""What the tiny base is taught: every scene is legal, its answers follow from what stands in it, and the same seed draws it again."""

import argparse
import json
import random
import re
import sys

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from helpers.examples import id_format
from helpers.parsing import NoTool, ToolCall, parse_tool_call
from helpers.paths import TINY_BASE
from helpers.tools import Toolset, ToolSpec

sys.path.insert(0, str(TINY_BASE))  # its scripts run alone, beside the data they read
import build
import measure
import synthesis
from scenes import letter_pieces

SIGNATURE = re.compile(r"^- ([\w.-]+)\((.*?)\): (.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def clinc():
    """CLINC150's requests are not in the repository; 24 made-up ones an intent stand in for them."""
    intents = [row["intent"] for row in synthesis.read_jsonl(TINY_BASE / "intents.jsonl")]
    return [
        {"request": f"{intent.replace('_', ' ')} for the {n} of us", "intent": intent}
        for intent in [*intents, *sorted(synthesis.CHITCHAT), "out_of_scope"]
        for n in ("two three four five six seven eight nine ten eleven twelve thirteen " * 2).split()
    ]


def drawn(clinc, seed: int = 0, count: int = 40) -> list:
    source = synthesis.Synthesis(clinc, seed)
    return [source.scene(12) for _ in range(count)]


def catalogue(system: str) -> Toolset:
    """The catalogue as it can be read from the prompt; enough of it to judge an answer's form."""
    types = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
    specs = []
    for name, arguments, description in SIGNATURE.findall(system):
        parts = dict(part.split(": ", 1) for part in re.split(r", (?=[\w.-]+\??: )", arguments) if part)
        properties = {part.rstrip("?"): {"type": types[kind]} if kind in types else {} for part, kind in parts.items()}
        required = [part for part in parts if not part.endswith("?")]
        schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
        specs.append(ToolSpec(name, description, schema))
    return Toolset.from_specs(specs)


def test_every_answer_is_legal_under_its_catalogue(clinc):
    kinds = set()
    for scene in drawn(clinc):
        tools = catalogue(scene.system)
        for turn in scene.turns:
            decision = parse_tool_call(turn.answer, tools)
            assert isinstance(decision, ToolCall if turn.kind == "call" else NoTool), (turn, decision)
            kinds.add(turn.kind)
    assert {"call", "ambiguous", "underspecified", "out_of_scope"} <= kinds


def test_the_same_seed_draws_the_same_scenes(clinc):
    assert drawn(clinc, 3, 5) == drawn(clinc, 3, 5) != drawn(clinc, 4, 5)


def test_held_out_intents_and_verbs_are_in_no_scene(clinc):
    held_out = synthesis.Synthesis(clinc, 0, held_out=True)
    taught = synthesis.Synthesis(clinc, 0)
    assert set(held_out.intents) == set(synthesis.HELD_OUT_INTENTS) and not set(held_out.intents) & set(taught.intents)
    assert held_out.composer.verbs and not [verb for verb in held_out.composer.verbs if verb in taught.composer.verbs]
    names = {name for verb in held_out.composer.verbs for name in (verb["verb"], *verb["also"])}
    assert taught.composer.any_words and not names & set(taught.composer.any_words)  # nor does one come in as any word
    assert held_out.composer.any_verb == 0  # nor a taught one where held-out ones are measured


def test_what_has_to_be_copied_is_made_of_pieces_that_nobody_could_guess(clinc):
    source = synthesis.Synthesis(clinc, 0)
    source.pieces = letter_pieces(AutoTokenizer.from_pretrained(TINY_BASE))
    assert len(source.pieces) > 1000 and all(piece.isalpha() and piece.islower() for piece in source.pieces)
    turns = source.copy_scene(100).turns
    copied = [json.loads(turn.answer)["copy"] for turn in turns]
    words = {word.lower() for value in copied for word in value.split() if word.isalpha()}
    assert len(words - set(source.words)) > len(words) / 3
    assert all(value in turn.request for value, turn in zip(copied, turns, strict=True))


def test_no_scene_keeps_a_slot_that_was_not_filled(clinc):
    requests = [turn.request for scene in drawn(clinc, 1, 150) for turn in scene.turns]
    assert not [request for request in requests if re.search(r"\{(code|reason|verb|noun|ing|past)2?\}", request)]


def test_codes_are_of_many_forms_and_hold_at_least_two_digits():
    rng = random.Random(0)
    codes = [synthesis.make_code(rng, ["kite", "pond"]) for _ in range(2000)]
    assert all(4 <= len(code) <= 18 and sum(sign.isdigit() for sign in code) >= 2 and " " not in code for code in codes)
    assert len({id_format(code) for code in codes}) > 500


def test_finished_weights_start_again_at_a_lower_rate_and_without_the_copying_stage():
    first = 18317
    rates = [build.schedule(first + n, n / 1000, first) for n in range(1000)]
    assert max(rates) < build.REHEATED < build.ROUTING and rates.index(max(rates)) < build.WARM_UP
    assert rates[-1] < 0.01 * build.REHEATED and rates[build.WARM_UP :] == sorted(rates[build.WARM_UP :], reverse=True)


def test_finished_weights_get_another_go_that_can_be_resumed(clinc, monkeypatch, tmp_path):
    monkeypatch.setattr(build.shutil, "which", lambda program: None)  # two steps are not worth compiling
    source, tokenizer = synthesis.Synthesis(clinc, 0), AutoTokenizer.from_pretrained(TINY_BASE)
    source.pieces = letter_pieces(tokenizer)
    before = json.loads((TINY_BASE / "build.json").read_text(encoding="utf-8"))
    options = {"seed": 0, "start": TINY_BASE, "resume": False, "work": tmp_path, "minutes": 60, "checkpoint_minutes": 60}
    model, record = build.train(argparse.Namespace(**options, steps=2), source, tokenizer)
    assert record["steps"] == before["steps"] + 2 and record["stopped_by"] == "steps" and record["loss"] < 0.5
    old = LlamaForCausalLM.from_pretrained(TINY_BASE, dtype=torch.float32).state_dict()
    moved = [(value - old[name]).norm() / old[name].norm() for name, value in model.state_dict().items()]
    assert 0 < max(moved) < 0.02
    options |= {"start": None, "resume": True}
    _, record = build.train(argparse.Namespace(**options, steps=3), source, tokenizer)
    assert record["steps"] == before["steps"] + 3
    assert record["went_on_from"] == {key: before[key] for key in ("steps", "minutes", "sha256")}
    with pytest.raises(ValueError, match="the checkpoint is at step 3 of 3"):
        build.train(argparse.Namespace(**options, steps=3), source, tokenizer)


def test_muon_makes_steps_of_one_size_in_all_directions_and_pytorchs_are_those():
    torch.manual_seed(0)
    for shape in ((24, 8), (8, 24)):
        ours, theirs = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
        optimizers = build.Muon([ours], lr=0.01), torch.optim.Muon([theirs], lr=0.01, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
        for _ in range(3):
            ours.grad = theirs.grad = torch.randn(shape)
            for optimizer in optimizers:
                optimizer.step()
        step = (ours.detach() - 1) / (0.01 * 0.2 * 24**0.5)
        assert torch.linalg.svdvals(step).max() < 3 * 1.5
        assert torch.nn.functional.cosine_similarity(ours.detach().flatten() - 1, theirs.detach().flatten() - 1, dim=0) > 0.99
        assert torch.allclose(ours, theirs, atol=0.01)  # theirs are rounded to bfloat16


def test_the_record_says_when_the_sources_have_changed():
    record = json.loads((TINY_BASE / "build.json").read_text(encoding="utf-8"))
    assert record["sources_sha256"] == build.sources_digest(), "the weights were made from other sources: build again"


def test_the_model_card_shows_what_the_record_says():
    card = (TINY_BASE / "README.md").read_text(encoding="utf-8")
    record = json.loads((TINY_BASE / "build.json").read_text(encoding="utf-8"))
    able = record["abilities"]
    assert record["measured"] in card
    both = zip(able["turn_accuracy"].items(), able["turn_accuracy_held_out_verbs"].values(), strict=True)
    for (kind, taught), verbs in both:
        assert f"| {kind.replace('_', ' ')} | {taught:.2f} | {verbs:.2f} |" in card
    chosen = (able["choice_among_4_held_out_intents"], able["choice_by_common_words_rule"], *able["choice_among_4_by_words"].values())
    for share in chosen:
        assert f" | {share:.3f} |" in card


def test_a_tool_is_counted_as_chosen_when_its_call_is_the_likeliest(clinc):
    tokenizer, source = AutoTokenizer.from_pretrained(TINY_BASE), synthesis.Synthesis(clinc, 0)
    model = LlamaForCausalLM.from_pretrained(TINY_BASE, dtype=torch.float32).eval()
    taught = source.tools[0]
    specs = [source._instantiate(tool)["spec"] for tool in (taught, *source.tools[100:103])]
    request = source._request(source._instantiate(taught))[0]
    scene = measure._choice(random.Random(0), request, specs)
    assert {turn.request for turn in scene.turns} == {request} and len(SIGNATURE.findall(scene.system)) == measure.CHOICES
    wrong = synthesis.Scene(scene.system, [*scene.turns[1:], scene.turns[0]])
    assert measure._right(model, tokenizer, [scene, wrong]) == 0.5
    long = measure._choice(random.Random(0), request * 30, specs)
    with pytest.raises(ValueError, match="does not fit"):
        measure._right(model, tokenizer, [long])


def test_the_rule_counts_words_in_common_and_shares_ties():
    system = "Tools:\n- flip_coin(): Toss a coin.\n- play_song(): start some song\n- tell_time(): say the hour"
    calls = {name: f'{{"tool":"{name}","arguments":{{}}}}' for name in ("flip_coin", "play_song", "tell_time")}

    def rule(request: str, right: str) -> float:
        turns = [synthesis.Turn(request, calls[name], "call") for name in (right, *(calls.keys() - {right}))]
        return measure.common_words_rule([synthesis.Scene(system, turns)])

    assert rule("songs are to be started", "play_song") == 1 and rule("songs are to be started", "flip_coin") == 0
    assert rule("a coin for the song", "flip_coin") == 1 / 2 and rule("what is it", "tell_time") == 1 / 3
