"""What the tiny base is taught: every scene is legal, its answers follow from what stands in it, and the same seed draws it again."""

import json
import random
import re
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from helpers.parsing import NoTool, ToolCall, parse_tool_call
from helpers.paths import TINY_BASE
from helpers.tools import Toolset, ToolSpec

sys.path.insert(0, str(TINY_BASE))  # its scripts run alone, beside the data they read
import build
import grow
import synthesis
import vocabulary
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
    assert len({re.sub("[0-9]+", "9", re.sub("[a-z]+", "a", re.sub("[A-Z]+", "A", code))) for code in codes}) > 500


def test_the_record_says_when_the_sources_have_changed():
    record = json.loads((TINY_BASE / "build.json").read_text(encoding="utf-8"))
    assert record["sources_sha256"] == build.sources_digest(), "the weights were made from other sources: build again"


def test_ids_are_read_sign_by_sign():
    tokenizer = AutoTokenizer.from_pretrained(TINY_BASE)
    assert [tokenizer.decode([token]) for token in tokenizer("KX-4471b")["input_ids"]] == ["K", "X", "-", "4", "4", "7", "1", "b"]


@pytest.mark.parametrize("text", ["a\n\n b", "naïve ☃ Ünïcode", "x  y\tz", "<|im_start|>", '{"tool":"no_tool"}', "‮", "O'Brien's 10%"])
def test_what_is_cut_into_tokens_is_put_together_again(text):
    tokenizer = AutoTokenizer.from_pretrained(TINY_BASE)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_words_that_mean_the_same_stand_together_in_the_embeddings_and_both_forms_of_a_word_mean_the_same():
    tokenizer = AutoTokenizer.from_pretrained(TINY_BASE)
    weights = load_file(TINY_BASE / "model.safetensors")["model.embed_tokens.weight"].float()

    def meaning(word: str):
        (token,) = tokenizer(word)["input_ids"]
        return torch.nn.functional.normalize(weights[token, : vocabulary.MEANING], dim=0)

    for word, like, unlike in ((" songs", " music", " money"), (" sent", " send", " blue"), (" doctor", " hospital", " song")):
        assert meaning(word) @ meaning(like) > meaning(word) @ meaning(unlike) + 0.2
    assert torch.equal(meaning("song"), meaning(" song"))


def test_muon_makes_steps_of_one_size_in_all_directions():
    matrix = torch.nn.Parameter(torch.zeros(24, 16))
    matrix.grad = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
    build.Muon([matrix], lr=1.0, weight_decay=0.0).step()
    sizes = torch.linalg.svdvals(matrix.detach()) / (0.2 * 24**0.5)
    assert sizes.min() > 0.4 and sizes.max() < 1.5
    assert (matrix * matrix.grad).sum() < 0  # downhill


def test_the_loss_of_an_answer_counts_the_same_whatever_its_length():
    torch.manual_seed(0)
    model = build.build_model(torch.randn(50, vocabulary.MEANING) / 16)
    ids = torch.randint(50, (1, 12))
    batch = {"input_ids": ids, "position_ids": torch.arange(12)[None], "attention_mask": torch.ones(1, 1, 12, 12).tril().bool()}
    labels = torch.full((1, 12), -100)
    labels[0, 2:4], labels[0, 6:12] = ids[0, 2:4], ids[0, 6:12]
    with torch.no_grad():
        loss, right = build.answer_loss(model, batch | {"labels": labels})
        logprobs = model(**batch).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    assert loss.item() == pytest.approx(-(logprobs[1:3].mean() + logprobs[5:11].mean()).item() / 2, rel=1e-4)
    assert 0 <= right <= 1


def test_what_words_mean_is_not_trained():
    columns = torch.randn(50, vocabulary.MEANING)
    model = build.build_model(columns)
    model(input_ids=torch.arange(8)[None]).logits.sum().backward()
    embeddings = model.model.embed_tokens.weight
    trained = embeddings.grad.abs().sum(0) > 0
    assert torch.equal(embeddings[:, : vocabulary.MEANING], columns)
    assert not trained[: vocabulary.MEANING].any() and trained[vocabulary.MEANING :].all()


def test_a_word_is_looked_up_by_what_it_means_and_far_away_as_well_as_near():
    torch.manual_seed(0)
    columns = torch.nn.functional.normalize(torch.randn(50, vocabulary.MEANING), dim=1)
    model = build.build_model(columns)
    attention = model.model.layers[build.LOOKING].self_attn
    stream = torch.zeros(1, 200, build.WIDTH)
    stream[0, :, : vocabulary.MEANING] = 16 * columns[torch.arange(200) % 50]
    heads = (1, 200, 4, attention.head_dim)
    query, key = (project(stream).view(heads).transpose(1, 2) for project in (attention.q_proj, attention.k_proj))
    query, key = apply_rotary_pos_emb(query, key, *model.model.rotary_emb(stream, torch.arange(200)[None]))
    scores = (query @ key.transpose(2, 3))[0].mean(0)[199]
    alike = (torch.arange(200) % 50) == 199 % 50
    assert scores[alike].min() > scores[~alike].max()


def test_a_grown_base_answers_as_the_smaller_one_did():
    """To the last digit, when the columns of meaning are what stood in their place; the new layer adds nothing yet."""
    torch.manual_seed(0)
    config = build.build_model(torch.zeros(50, vocabulary.MEANING)).config
    small = LlamaForCausalLM(type(config).from_dict(config.to_dict() | {"num_hidden_layers": config.num_hidden_layers - 1})).eval()
    for name, parameter in small.named_parameters():
        if "norm" in name:
            parameter.data = torch.full_like(parameter, 1.5) if name == "model.norm.weight" else torch.rand_like(parameter) + 0.5
    embeddings = small.model.embed_tokens.weight.detach()
    _, axes = torch.linalg.eigh(torch.cov(embeddings.T))
    large = grow.grow(small, (embeddings @ axes)[:, : vocabulary.MEANING]).eval()
    ids = torch.randint(50, (2, 20))
    with torch.no_grad():
        assert torch.allclose(large(ids).logits, small(ids).logits, atol=1e-4)
    assert len(large.model.layers) == len(small.model.layers) + 1
