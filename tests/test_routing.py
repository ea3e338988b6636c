"""The router: the same outputs as one-at-a-time stock generation, in the order asked, and clear errors."""

import dataclasses
import json

import pytest
import torch
from peft import PeftModel

from helpers.decoding import MAX_NEW_TOKENS, Completion
from helpers.examples import load_examples, to_messages
from helpers.models import load_base, load_tokenizer
from helpers.parsing import InvalidOutput, NoTool, ToolCall
from helpers.paths import TINY_BASE
from helpers.perturbations import padded
from helpers.recipes import TINY
from helpers.routing import Router
from helpers.tools import Tool, Toolset
from helpers.training import token_ids, train


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
        monkeypatch.setattr(each, "complete", lambda requests: [Completion(output, (output,), (0.0,), 1) for _ in requests])
    assert other.route("where does Vega stand tonight?") == ToolCall("find_star", {"name": "Vega"})
    assert router.route("where does Vega stand tonight?").problem == "unknown_tool"
    assert "find_star(name: str)" in router.tokenizer.decode(other.prompt("hi"))


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


def test_a_message_of_ten_thousand_characters_is_answered(router):
    (output,) = router.generate([padded("where is B-7781", None)])
    assert isinstance(output, str)


def test_a_small_base_is_written_out_and_its_adapter_added_and_says_the_same(tmp_path):
    rows = load_examples("train")[:48]
    adapter = train(rows, tmp_path, str(TINY_BASE), dataclasses.replace(TINY, epochs=1))
    merged = Router.from_pretrained(adapter=adapter)
    assert {type(module) for name, module in merged.model.named_modules() if name.endswith("_proj")} == {torch.nn.Linear}
    beside = Router(PeftModel.from_pretrained(load_base(str(TINY_BASE)).dequantize(), str(adapter)), merged.tokenizer)
    base = Router.from_pretrained(str(TINY_BASE))
    whole = Router.from_pretrained(str(TINY_BASE), four_bit=False)
    requests = [example.request for example in load_examples("validation")[:16]]
    outputs = merged.generate(requests)
    assert outputs == beside.generate(requests) != base.generate(requests)
    weights = [router.model.get_submodule("model.layers.0.mlp.up_proj").weight.float() for router in (base, whole)]
    assert 0.01 < (weights[0] - weights[1]).norm() / weights[1].norm() < 0.2  # rounded to 4 bits all the same
