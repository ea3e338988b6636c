"""What the tiny base is taught: every scene is legal, its answers follow from what stands in it, and the same seed draws it again."""

import json
import random
import re
import sys

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from helpers.parsing import NoTool, ToolCall, parse_tool_call
from helpers.paths import TINY_BASE
from helpers.tools import Toolset, ToolSpec

sys.path.insert(0, str(TINY_BASE))  # its scripts run alone, beside the data they read
import build
import grow
import synthesis
import vocabulary
from reading import looks
from scenes import LENGTH, letter_pieces, pack

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
    assert all(4 <= len(code) <= 20 and sum(sign.isdigit() for sign in code) >= 2 and " " not in code for code in codes)
    assert len({re.sub("[0-9]+", "9", re.sub("[a-z]+", "a", re.sub("[A-Z]+", "A", code))) for code in codes}) > 500


def test_the_record_says_when_the_sources_have_changed():
    record = json.loads((TINY_BASE / "build.json").read_text(encoding="utf-8"))
    assert record["sources_sha256"] == build.sources_digest(), "the weights were made from other sources: build again"


# --- reading --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TINY_BASE)


@pytest.fixture(scope="module")
def models():
    """A small base with random weights, and the grown one whose new places hold nothing and whose owners are not written down."""
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "head_dim": 64, "num_attention_heads": 1, "num_key_value_heads": 1, "num_hidden_layers": 4}
    small = LlamaForCausalLM(LlamaConfig(vocab_size=50, intermediate_size=96, tie_word_embeddings=True, pad_token_id=0, **shape)).eval()
    for name, parameter in small.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    torch.nn.init.normal_(small.model.embed_tokens.weight)  # as large as trained ones, beside which the norms' epsilon is nothing
    table = torch.nn.functional.pad(small.model.embed_tokens.weight.detach(), (0, grow.MEANING))
    large, new = grow.grow(small, table, grow.Owners(torch.zeros(64, grow.CODE), torch.randn(grow.CODE, 64), torch.randn(64, grow.CODE)))
    return small, large.eval(), new


def a_batch(length: int = 30) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 50, (2, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 1, length, length).tril().bool()
    return {"input_ids": ids, "position_ids": torch.arange(length).expand(2, -1), "attention_mask": mask}


def test_a_grown_base_answers_as_the_small_one_does(models):
    small, large, new = models
    batch = a_batch()
    with torch.no_grad():
        assert torch.allclose(large(**batch).logits, small(**batch).logits, atol=1e-4)
    kept = sum(int((~mask).sum()) for mask in new.values())
    assert kept == sum(parameter.numel() for parameter in small.parameters())


def test_what_is_watched_is_what_the_head_looks_at(models):
    _, large, _ = models
    watch, batch = grow.Watch(large), a_batch()
    large.set_attn_implementation("eager")
    with torch.no_grad():
        seen = large(**batch, output_attentions=True).attentions
        for layer in (grow.OWNER, grow.GATHER, grow.POINT):
            found = watch.attention(layer, 1, torch.tensor([0, 1]), torch.tensor([7, 29]), batch).exp()
            assert torch.allclose(found, seen[layer][[0, 1], 2, [7, 29]], atol=1e-5)
    large.set_attn_implementation("sdpa")


def test_only_new_numbers_move_at_the_full_rate_at_first(models):
    _, large, new = models
    alone = grow.Alone(large, new)
    before = {name: parameter.detach().clone() for name, parameter in large.named_parameters()}
    large(**a_batch()).logits.square().sum().backward()
    alone.step(1.0)
    name = "model.layers.0.mlp.gate_proj.weight"
    moved = (large.get_parameter(name) - before[name]).abs()
    assert 0 < moved[~new[name]].max() < 0.1 * grow.PEAK_ALONE < moved[new[name]].max()
    large.zero_grad()
    with torch.no_grad():
        for name, parameter in large.named_parameters():
            parameter.copy_(before[name])


def test_muon_makes_steps_of_one_size_in_all_directions():
    matrix = torch.nn.Parameter(torch.zeros(24, 16))
    matrix.grad = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
    grow.Muon([matrix], lr=1.0).step()
    sizes = torch.linalg.svdvals(matrix.detach()) / (0.2 * 24**0.5)
    assert sizes.min() > 0.4 and sizes.max() < 1.5
    assert (matrix * matrix.grad).sum() < 0  # downhill


def test_the_loss_of_an_answer_counts_the_same_whatever_its_length(models):
    _, large, _ = models
    batch = a_batch(12)
    labels = torch.full((2, 12), -100)
    labels[0, 2:4], labels[0, 6:12] = batch["input_ids"][0, 2:4], batch["input_ids"][0, 6:12]
    with torch.no_grad():
        naming = torch.zeros(2, 12, dtype=torch.bool)
        naming[0, 6] = True
        losses = grow.answer_losses(large, batch | {"labels": labels}, naming)
        logprobs = large(**batch).logits[0, :-1].log_softmax(-1).gather(1, batch["input_ids"][0, 1:, None])[:, 0]
    assert losses["answer"].item() == pytest.approx(-(logprobs[1:3].mean() + logprobs[5:11].mean()).item() / 2, rel=1e-4)
    assert losses["name"].item() == pytest.approx(-logprobs[6].item(), rel=1e-4)


def test_new_words_are_one_token_each_and_all_other_text_is_split_as_before(tokenizer):
    grown = vocabulary.extend(tokenizer, ["zebrafish", "quasar"])
    for text in ("zebrafish", " zebrafish", "quasar", " quasar"):
        assert len(grown(text)["input_ids"]) == 1 and grown.decode(grown(text)["input_ids"]) == text
    assert len(tokenizer("zebrafish")["input_ids"]) > 1
    for text in ("where is KX-4471b?", '{"tool":"no_tool"}', "a\n\n b", "naïve ☃ Ünïcode", "<|im_start|>user", "O'Brien's 10%"):
        assert grown(text)["input_ids"] == tokenizer(text)["input_ids"] and grown.decode(grown(text)["input_ids"]) == text
    assert grown.chat_template == tokenizer.chat_template and grown.eos_token_id == tokenizer.eos_token_id
    assert {(grown.decode([a]), grown.decode([b])) for a, b in vocabulary.spaced_pairs(grown)} >= {("quasar", " quasar")}


def test_a_look_goes_to_the_tool_that_answers_and_to_the_words_that_say_so(tokenizer):
    system = "Tools:\n- open_gate(code: str): Open a gate.\n- ring_bell(): Ring the bell.\nAnswer with one JSON object"
    turns = [
        synthesis.Turn("please ring it", '{"tool":"ring_bell","arguments":{}}', "call"),
        synthesis.Turn("lovely day", '{"tool":"no_tool","reason":"small talk"}', "chitchat"),
        synthesis.Turn("ring it some day", '{"tool":"no_tool","reason":"not asked for now"}', "negated"),
    ]
    scenes = [synthesis.Scene("copy", [synthesis.Turn("[x]", '{"copy":"x"}', "copy")]), synthesis.Scene(system, turns)]
    telling = torch.ones(len(tokenizer))
    telling[tokenizer(" it")["input_ids"]] = 0.01
    batch, seen = pack(scenes, tokenizer), looks(scenes, tokenizer, telling)
    ids = batch["input_ids"]
    assert set(seen.owned_row.tolist()) == {1}  # nothing is to be looked for where there is only copying
    owners = {tokenizer.decode(ids[1, o]).strip() for o in seen.owner}
    assert "user" in owners and any("open_gate".startswith(owner) for owner in owners) and any("ring_bell".startswith(o) for o in owners)
    assert bool((seen.owner <= seen.owned).all())
    bell = tokenizer.decode(ids[1]).index("Ring the bell.") + len("Ring the bell.")
    asked = list(zip(seen.asked_row.tolist(), seen.asked.tolist(), seen.target.tolist(), strict=True))
    assert [target for _, _, target in asked][1:] == [0]  # small talk is for no tool, and the negated call is left alone
    assert tokenizer.decode(ids[1, : asked[0][2] + 1]) == tokenizer.decode(ids[1])[:bell]
    for row, naming, _ in asked:
        assert tokenizer.decode(ids[row, : naming + 1]).endswith('{"tool":"')
    assert torch.allclose(seen.share.sum(1), torch.ones(len(seen.share))) and seen.share.shape == (5, LENGTH)
    request = seen.share[seen.gathers == asked[0][1]][0]
    assert tokenizer.decode(ids[1, request > 0]).startswith("\nplease ring it<|im_end|>")
    assert request[ids[1] == tokenizer(" it")["input_ids"][0]].max() < request.max() / 10
