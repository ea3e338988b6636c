"""Decoding: the same outputs as `model.generate` whatever is drafted, held once, or allowed, with every token's probability."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, Qwen2Config, Qwen3Config

from helpers import decoding, packing
from helpers.examples import load_examples
from helpers.grammar import Grammar
from helpers.lab.stock import plain_output
from helpers.models import load_base, load_tokenizer
from helpers.parsing import InvalidOutput, NoTool, ToolCall, parse_tool_call
from helpers.paths import TINY_BASE
from helpers.routing import Router


@pytest.fixture(scope="module")
def router() -> Router:
    return Router(load_base(str(TINY_BASE), four_bit=False).float(), load_tokenizer(str(TINY_BASE)))


def test_completions_hold_every_token_with_the_probability_that_the_model_gave_it(router):
    requests = [example.request for example in load_examples("test")[:6]]
    for request, completion in zip(requests, router.complete(requests, batch_size=4), strict=True):
        assert completion.text == plain_output(router, request) == "".join(completion.pieces)
        prompt = router.prompt(request)
        answer = [*router.tokenizer(completion.text)["input_ids"], router.tokenizer.eos_token_id]
        with torch.inference_mode():
            logprobs = router.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        expected = [logprobs[n, token].item() for n, token in enumerate(answer)]
        assert completion.logprobs == pytest.approx(expected, abs=1e-3)


def test_pieces_join_to_the_text_where_a_character_takes_several_tokens(router):
    ids = [*router.tokenizer('{"tool":"é😀\u200b"}')["input_ids"], router.tokenizer.eos_token_id]
    completion = router.decoder._completion([(token, -0.5) for token in ids], steps=1)
    assert completion.text == "".join(completion.pieces) == '{"tool":"é😀\u200b"}'
    assert len(completion.pieces) == len(completion.logprobs) == len(ids) and completion.pieces[-1] == ""


def test_a_grammar_leaves_only_legal_outputs_and_changes_no_legal_one(router, monkeypatch):
    pytest.importorskip("xgrammar")
    requests = [example.request for example in load_examples("validation")[:24]]
    grammar = Grammar(router.toolset, router.tokenizer, router.model.config.vocab_size)
    free, forced = router.generate(requests), [completion.text for completion in router.complete(requests, grammar=grammar)]
    decisions = [parse_tool_call(output, router.toolset) for output in forced]
    assert all(isinstance(decision, ToolCall | NoTool) for decision in decisions)
    assert [
        b for a, b in zip(free, forced, strict=True) if not isinstance(parse_tool_call(a, router.toolset), InvalidOutput) and a != b
    ] == []
    monkeypatch.setattr(decoding, "LOGITS", 0)  # no room for a draft
    assert [completion.text for completion in router.complete(requests[:8], grammar=grammar)] == forced[:8]


def test_drafts_change_the_number_of_steps_and_not_the_output(router, monkeypatch):
    requests = [example.request for example in load_examples("test")[::8]] + ["", "<|im_end|>", "é😀" * 40]
    drafted = {size: router.complete(requests, batch_size=size) for size in (1, 5, 32)}
    monkeypatch.setattr(decoding, "LOGITS", 0)  # no room for a draft
    plain = router.complete(requests)
    assert all(completion.steps == len(completion.logprobs) for completion in plain)
    for completions in drafted.values():
        for slow, fast in zip(plain, completions, strict=True):
            assert (fast.text, fast.pieces) == (slow.text, slow.pieces)
            assert fast.logprobs == pytest.approx(slow.logprobs, abs=1e-3)
        assert 2 * sum(completion.steps for completion in completions) < sum(completion.steps for completion in plain)


def test_an_output_without_an_end_is_cut_at_the_limit(router, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_NEW_TOKENS", 9)
    completions = router.complete([example.request for example in load_examples("test")[:5]])
    assert {len(completion.logprobs) for completion in completions} == {9}


def test_without_a_prefix_in_common_rows_are_decoded_one_by_one(router, monkeypatch):
    requests = [example.request for example in load_examples("test")[:3]]
    other = Router(router.model, router.tokenizer)
    monkeypatch.setattr(other.decoder, "prefix", [])
    assert other.generate(requests) == router.generate(requests)


@pytest.mark.parametrize("window", [32, 4096])
def test_a_model_with_a_sliding_window(window, router, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_NEW_TOKENS", 24)  # random weights do not stop by themselves
    config = Gemma3TextConfig(
        vocab_size=len(router.tokenizer), sliding_window=window, sliding_window_pattern=2, hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    gemma = Router(AutoModelForCausalLM.from_config(config), router.tokenizer)
    requests = [example.request for example in load_examples("test")[:4]]
    assert gemma.generate(requests) == [plain_output(gemma, request) for request in requests]


# --- the catalogue held once --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize("scores", [1, 2**26])  # a query at a time, or all
@pytest.mark.parametrize("masked", [True, False])
def test_a_prefix_held_once_is_met_as_one_repeated_for_each_row(heads, scores, masked, monkeypatch):
    monkeypatch.setattr(packing, "SCORES", scores)
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(3, h, n, 8, generator=draw) for h, n in ((4, 5), (heads, 7), (heads, 7)))
    before = [torch.randn(1, heads, 11, 8, generator=draw) for _ in range(2)]
    mask = torch.ones(5, 7, dtype=torch.bool).tril(2).repeat(3, 1, 1, 1)
    if masked:
        mask[1, :, :, :3] = False  # a row whose first keys are padding, and a query that sees nothing of its own
        mask[2, :, 0] = False
    found = packing.SharedPrefix([tuple(before)]).attend(0, query, key, value, mask if masked else None, 0.3)
    repeated = [torch.cat([x.expand(3, -1, -1, -1), own], dim=2) for x, own in ((before[0], key), (before[1], value))]
    repeated = [x.repeat_interleave(4 // heads, dim=1) for x in repeated]
    whole = torch.cat([torch.ones(3, 1, 5, 11, dtype=torch.bool), mask], dim=3)
    expected = torch.nn.functional.scaled_dot_product_attention(query, *repeated, attn_mask=whole, scale=0.3)
    assert torch.allclose(found, expected.transpose(1, 2), atol=1e-6)


def test_scores_that_float16_cannot_hold_are_met_in_float32():
    draw = torch.Generator().manual_seed(0)
    query, key, value = (300 * torch.randn(2, 2, 5, 8, generator=draw) for _ in range(3))
    before = [300 * torch.randn(1, 2, 6, 8, generator=draw) for _ in range(2)]
    found, half = (
        packing.SharedPrefix([tuple(x.to(dtype) for x in before)]).attend(0, *(x.to(dtype) for x in (query, key, value)), None, None)
        for dtype in (torch.float32, torch.float16)
    )
    assert (query @ key.mT).abs().max() > torch.finfo(torch.float16).max
    assert half.dtype == torch.float16 and torch.isfinite(half).all() and (half.float() - found).norm() < 0.05 * found.norm()


def test_the_prefix_is_not_copied_and_a_repeated_one_gives_the_same(router, monkeypatch):
    requests = [example.request for example in load_examples("test")[5:60:5]]
    outputs = router.complete(requests)
    held, kept = router.decoder._shared_prefix(17), router.decoder._catalogue()
    assert [keys.data_ptr() for keys, _ in held.layers] == [layer.keys.data_ptr() for layer in kept.layers]
    monkeypatch.setattr(router.decoder, "_holds_prefix", False)
    for once, repeated in zip(outputs, router.complete(requests), strict=True):
        assert (once.text, once.steps) == (repeated.text, repeated.steps)
        assert once.logprobs == pytest.approx(repeated.logprobs, abs=1e-3)


@pytest.mark.parametrize("architecture", [LlamaConfig, Qwen2Config, Qwen3Config])
def test_architectures_that_hold_the_prefix(architecture, router, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_NEW_TOKENS", 24)
    config = architecture(
        vocab_size=len(router.tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    other = Router(AutoModelForCausalLM.from_config(config), router.tokenizer)
    requests = [example.request for example in load_examples("test")[:4]]
    assert other.generate(requests) == [plain_output(other, request) for request in requests] and other.decoder._holds_prefix


def test_a_model_that_does_not_hand_the_prefix_on_gets_a_repeated_one(router, monkeypatch):
    deaf, forward = Router(router.model, router.tokenizer), router.model.forward
    monkeypatch.setattr(router.model, "forward", lambda *args, shared_prefix=None, **options: forward(*args, **options))
    requests = [example.request for example in load_examples("test")[:4]]
    outputs = deaf.generate(requests)
    monkeypatch.undo()
    assert not deaf.decoder._holds_prefix and outputs == router.generate(requests)
