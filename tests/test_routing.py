"""The router: the same outputs as one-at-a-time stock generation, in the order asked, and clear errors."""

import json

import pytest
import torch

from helpers.examples import load_examples, to_messages
from helpers.grammar import Grammar
from helpers.models import load_base, load_tokenizer
from helpers.parsing import InvalidOutput, NoTool, ToolCall, parse_tool_call
from helpers.paths import TINY_BASE
from helpers.perturbations import padded
from helpers.routing import MAX_NEW_TOKENS, Completion, Router
from helpers.tools import Tool, Toolset
from helpers.training import token_ids


@pytest.fixture(scope="module")
def router() -> Router:
    return Router(load_base(str(TINY_BASE), four_bit=False).float(), load_tokenizer(str(TINY_BASE)))


def stock(router: Router, request: str) -> str:
    """What `model.generate` writes for one request by itself."""
    ids = torch.tensor([token_ids(router.tokenizer, to_messages(request, router.toolset))], device=router.model.device)
    with torch.inference_mode():
        out = router.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            pad_token_id=router.tokenizer.pad_token_id,
            eos_token_id=router.tokenizer.eos_token_id,
        )
    return router.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def test_batched_outputs_equal_stock_generation_row_by_row(router):
    requests = [example.request for example in load_examples("test")[::12]]
    assert router.generate(requests, batch_size=8) == [stock(router, request) for request in requests]


def test_the_order_of_requests_and_the_size_of_batches_do_not_matter(router):
    requests = [example.request for example in load_examples("validation")[:10]]
    once = router.generate(requests)
    assert router.generate(requests[::-1], batch_size=3) == once[::-1]


@pytest.mark.parametrize(
    "request_text", ["", " ", "\n\nwhere is it", "é😀\u200b", "<|im_end|>", '{"tool":"escalate","arguments":{"reason":"x"}}', "a" * 300]
)
def test_odd_requests_are_answered_like_any_other(router, request_text):
    assert router.generate([request_text]) == [stock(router, request_text)]


def test_no_requests_give_no_outputs(router):
    assert router.generate([]) == []


def test_route_returns_one_of_the_three_decisions(router):
    assert isinstance(router.route("Where is order ORD-1234?"), ToolCall | NoTool | InvalidOutput)


def test_the_catalogue_is_the_routers_own(router, monkeypatch):
    class FindStar(Tool):
        """Tell where a star stands tonight."""

        name: str

    other = Router(router.model, router.tokenizer, Toolset(FindStar))
    output = '{"tool":"find_star","arguments":{"name":"Vega"}}'
    for each in (router, other):
        monkeypatch.setattr(each, "complete_one", lambda request: Completion(output, (output,), (0.0,)))
    assert other.route("where does Vega stand tonight?") == ToolCall("find_star", {"name": "Vega"})
    assert router.route("where does Vega stand tonight?").problem == "unknown_tool"
    assert "find_star(name: str)" in router.tokenizer.decode(other._prompt("hi"))


def test_a_missing_adapter_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m helpers train"):
        Router.from_pretrained(adapter=tmp_path / "nothing")


def test_an_adapter_for_other_weights_of_the_tiny_base_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "recipe.json").write_text(json.dumps({"base": "tiny_base", "base_sha256": "0" * 64}))
    with pytest.raises(ValueError, match="other weights of the tiny base"):
        Router.from_pretrained(adapter=tmp_path)


def test_an_adapter_for_another_base_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/other-model"}))
    with pytest.raises(ValueError, match="belongs to the base some/other-model, not to tiny_base"):
        Router.from_pretrained(base=str(TINY_BASE), adapter=tmp_path)


def test_completions_hold_every_token_with_the_probability_that_the_model_gave_it(router):
    requests = [example.request for example in load_examples("test")[:6]]
    for request, completion in zip(requests, router.complete(requests, batch_size=4), strict=True):
        assert completion.text == stock(router, request) == "".join(completion.pieces)
        prompt = token_ids(router.tokenizer, to_messages(request, router.toolset))
        answer = [*router.tokenizer(completion.text)["input_ids"], router.tokenizer.eos_token_id]
        with torch.inference_mode():
            logprobs = router.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        expected = [logprobs[n, token].item() for n, token in enumerate(answer)]
        assert completion.logprobs == pytest.approx(expected, abs=1e-3)


def test_pieces_join_to_the_text_where_a_character_takes_several_tokens(router):
    ids = [*router.tokenizer('{"tool":"é😀\u200b"}')["input_ids"], router.tokenizer.eos_token_id]
    completion = router._completion([(token, -0.5) for token in ids])
    assert completion.text == "".join(completion.pieces) == '{"tool":"é😀\u200b"}'
    assert len(completion.pieces) == len(completion.logprobs) == len(ids) and completion.pieces[-1] == ""


def test_a_grammar_leaves_only_legal_outputs_and_changes_no_legal_one(router):
    pytest.importorskip("xgrammar")
    requests = [example.request for example in load_examples("validation")[:24]]
    grammar = Grammar(router.toolset, router.tokenizer, router.model.config.vocab_size)
    free, forced = router.generate(requests), [completion.text for completion in router.complete(requests, grammar=grammar)]
    decisions = [parse_tool_call(output, router.toolset) for output in forced]
    assert all(isinstance(decision, ToolCall | NoTool) for decision in decisions)
    assert [
        b for a, b in zip(free, forced, strict=True) if not isinstance(parse_tool_call(a, router.toolset), InvalidOutput) and a != b
    ] == []


def test_a_message_of_ten_thousand_characters_is_answered(router):
    (output,) = router.generate([padded("where is B-7781", None)])
    assert isinstance(output, str)


def test_drafts_change_the_number_of_steps_and_not_the_output(router):
    requests = [example.request for example in load_examples("test")[::8]] + ["", "<|im_end|>", "é😀" * 40]
    one_by_one = [router.complete_one(request) for request in requests]
    for slow, fast in zip(router.complete(requests), one_by_one, strict=True):
        assert (fast.text, fast.pieces) == (slow.text, slow.pieces)
        assert fast.logprobs == pytest.approx(slow.logprobs, abs=1e-3)
    tokens, steps = sum(len(c.logprobs) for c in one_by_one), sum(c.steps for c in one_by_one)
    assert steps * 2 < tokens
