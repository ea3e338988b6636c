"""The model as a function: requests in, outputs or decisions out. Greedy, batched, with the catalogue computed once."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from peft import PeftModel
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers.decoding import Completion, Decoder
from helpers.drafting import Drafter
from helpers.examples import to_messages
from helpers.grammar import Grammar
from helpers.models import accepts_system_role, base_label, default_base, is_small, load_base, load_tokenizer
from helpers.packing import common_length
from helpers.parsing import Decision, parse_tool_call
from helpers.paths import TINY_BASE
from helpers.tools import Toolset, support_desk
from helpers.training import RECIPE_FILE, token_ids, weights_digest


class Router:
    """A model, its tokenizer and a catalogue, as `request -> output` (`generate`) and `request -> decision` (`route`)."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, toolset: Toolset | None = None):
        self.model, self.tokenizer, self.toolset = model, tokenizer, toolset or support_desk()
        self._system_role = accepts_system_role(tokenizer)
        probes = [self.prompt(text) for text in ("a", "B 1")]
        self.decoder = Decoder(model, tokenizer, probes[0][: common_length(*probes)], Drafter(self.toolset))

    @classmethod
    def from_pretrained(
        cls, base: str | None = None, adapter: Path | str | None = None, toolset: Toolset | None = None, four_bit: bool = True
    ) -> Self:
        """A base (`default_base()` when none is given) and, when one is given, an adapter on top of it.

        An adapter brings its own base. A small base has its 4-bit weights written out and the adapter added to them: the same function
        in float32, and faster. To add it to the weights in 4 bits would round them anew and change outputs (how many, `bench`
        measures), so a larger base, which needs the 4 bits, keeps the adapter beside them.

        Raises FileNotFoundError when the adapter is not there, ValueError when it belongs to another base.
        """
        if adapter is None:
            base = base or default_base()
            return cls(_written_out(base, four_bit), load_tokenizer(base), toolset)
        adapter = Path(adapter)
        if not (adapter / "adapter_config.json").is_file():
            raise FileNotFoundError(f"no adapter in {adapter}; make one with: python -m helpers train --output {adapter}")
        own = _base_of(adapter)
        if base is not None and base_label(base) != base_label(own):
            raise ValueError(f"the adapter in {adapter} belongs to the base {base_label(own)}, not to {base_label(base)}")
        model = PeftModel.from_pretrained(_written_out(own, four_bit), str(adapter))
        return cls(model.merge_and_unload() if is_small(own) else model, load_tokenizer(own), toolset)

    def route(self, request: str) -> Decision:
        """The decision for one request."""
        return parse_tool_call(self.complete([request])[0].text, self.toolset)

    def generate(self, requests: Sequence[str], batch_size: int = 32, progress: bool = False) -> list[str]:
        """The model's greedy output for each request, in the order given, without special tokens."""
        return [completion.text for completion in self.complete(requests, batch_size, progress)]

    def complete(
        self, requests: Sequence[str], batch_size: int = 32, progress: bool = False, grammar: Grammar | None = None
    ) -> list[Completion]:
        """The greedy completion of each request, in the order given; with a `grammar`, the greedy one among those it allows."""
        prompts = [self.prompt(request) for request in requests]
        order = sorted(range(len(prompts)), key=lambda n: -len(prompts[n]))
        completions: dict[int, Completion] = {}
        with tqdm(total=len(prompts), desc="routing", unit="request", disable=not progress) as bar:
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                decoded = self.decoder.decode([prompts[n] for n in batch], [requests[n] for n in batch], grammar)
                completions |= dict(zip(batch, decoded, strict=True))
                bar.update(len(batch))
        return [completions[n] for n in range(len(prompts))]

    def prompt(self, request: str) -> list[int]:
        """The token ids of a request as the model reads it, below the catalogue."""
        return token_ids(self.tokenizer, to_messages(request, self.toolset, self._system_role))


def _written_out(base: str, four_bit: bool) -> PreTrainedModel:
    """The base; a small one in float32, in 4 bits with each weight as the number that its 4 bits stand for."""
    model = load_base(base, four_bit)
    if not is_small(base):
        return model
    return (model.dequantize(torch.float32) if getattr(model, "is_loaded_in_4bit", False) else model).float()


def _base_of(adapter: Path) -> str:
    """The base an adapter was trained on: from the recipe beside it, else from PEFT's own configuration."""
    if (adapter / RECIPE_FILE).is_file():
        try:
            made = json.loads((adapter / RECIPE_FILE).read_text(encoding="utf-8"))
        except ValueError:
            raise ValueError(f"{adapter / RECIPE_FILE} is damaged; train the adapter again") from None
        if made.get("base") == base_label(str(TINY_BASE)):  # where the repository stands now, not where it stood then
            if made.get("base_sha256") != weights_digest(str(TINY_BASE)):
                raise ValueError(f"the adapter in {adapter} was trained on other weights of the tiny base; train it again")
            return str(TINY_BASE)
    return json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
