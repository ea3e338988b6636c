"""The model as a function: requests in, outputs or decisions out. Greedy, batched, with the catalogue computed once."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from peft import PeftModel
from tqdm.auto import tqdm
from transformers import DynamicCache, DynamicLayer, PreTrainedModel, PreTrainedTokenizerBase

from helpers.drafting import Drafter
from helpers.examples import to_messages
from helpers.grammar import Grammar, Legal
from helpers.models import accepts_system_role, base_label, default_base, load_base, load_tokenizer
from helpers.parsing import Decision, parse_tool_call
from helpers.paths import TINY_BASE
from helpers.tools import Toolset, support_desk
from helpers.training import RECIPE_FILE, token_ids, weights_digest

MAX_NEW_TOKENS = 160  # the longest answers of the support desk take about 60; what runs on past this is cut and will not parse


@dataclass(frozen=True)
class Completion:
    """What the model wrote for one request, token by token.

    `pieces` are the tokens' texts, which join to `text` (the token that ends the completion is an empty one); `logprobs` the natural
    logarithms of the probabilities that the model gave them; `steps` the forward passes it took, where they were counted.
    """

    text: str
    pieces: tuple[str, ...]
    logprobs: tuple[float, ...]
    steps: int | None = None


class Router:
    """A model, its tokenizer and a catalogue, as `request -> output` (`generate`) and `request -> decision` (`route`)."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, toolset: Toolset | None = None):
        self.model, self.tokenizer, self.toolset = model.eval(), tokenizer, toolset or support_desk()
        self._system_role = accepts_system_role(tokenizer)
        ends = model.generation_config.eos_token_id
        self._ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        probes = [self._prompt(text) for text in ("a", "B 1")]
        self._prefix = probes[0][: _common_length(*probes)]
        self._drafter, self._kept = Drafter(self.toolset), None

    @classmethod
    def from_pretrained(
        cls, base: str | None = None, adapter: Path | str | None = None, toolset: Toolset | None = None, four_bit: bool = True
    ) -> Self:
        """A base (`default_base()` when none is given) and, when one is given, an adapter on top of it.

        An adapter brings its own base. Raises FileNotFoundError when it is not there, ValueError when it belongs to another base.
        """
        if adapter is None:
            base = base or default_base()
            return cls(load_base(base, four_bit), load_tokenizer(base), toolset)
        adapter = Path(adapter)
        if not (adapter / "adapter_config.json").is_file():
            raise FileNotFoundError(f"no adapter in {adapter}; make one with: python -m helpers train --output {adapter}")
        own = _base_of(adapter)
        if base is not None and base_label(base) != base_label(own):
            raise ValueError(f"the adapter in {adapter} belongs to the base {base_label(own)}, not to {base_label(base)}")
        return cls(PeftModel.from_pretrained(load_base(own, four_bit), str(adapter)), load_tokenizer(own), toolset)

    def route(self, request: str) -> Decision:
        """The decision for one request."""
        return parse_tool_call(self.complete_one(request).text, self.toolset)

    @torch.inference_mode()
    def complete_one(self, request: str) -> Completion:
        """The same greedy completion as `complete`, for one request and as fast as can be: drafts are checked many tokens at a time.

        The catalogue's keys and values are kept from request to request. `Completion.steps` counts the forward passes.
        """
        prompt = self._prompt(request)
        if self._kept is None:
            self._kept = self._prefix_cache(len(self._prefix))
        cache, shared = self._kept, min(_common_length(self._prefix, prompt), len(prompt) - 1)
        if shared < len(self._prefix) or not all(type(layer) is DynamicLayer for layer in cache.layers):
            return self.complete([request])[0]  # a request that reaches into the prefix, or a cache that cannot be cut back
        produced: list[tuple[int, float]] = []
        pending, ended, steps = prompt[shared:], False, 0
        try:
            while not ended and len(produced) < MAX_NEW_TOKENS:
                draft = self._draft([token for token, _ in produced], request)[: MAX_NEW_TOKENS - len(produced) - 1]
                ids = torch.tensor([pending + draft], device=self.model.device)
                logits = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=len(draft) + 1).logits[0]
                steps += 1
                best, logprobs = logits.argmax(-1).tolist(), logits.float().log_softmax(-1)
                held = next((n for n, (a, b) in enumerate(zip(draft, best, strict=False)) if a != b), len(draft))
                for n, token in enumerate(best[: held + 1]):
                    produced.append((token, logprobs[n, token].item()))
                    if ended := token in self._ends:
                        break
                cache.crop(held - len(draft))
                pending = best[held : held + 1]
        finally:
            cache.crop(len(self._prefix) - cache.get_seq_length())
        return dataclasses.replace(self._completion(produced), steps=steps)

    def _draft(self, produced: list[int], request: str) -> list[int]:
        """Tokens that may follow, as the tokenizer would write the whole; none when it would have written the beginning otherwise."""
        written = self.tokenizer.decode(produced)
        guess = self._drafter.draft(written, request)
        ids = self.tokenizer(written + guess, add_special_tokens=False)["input_ids"]
        if ids[: len(produced)] != produced:
            return []
        return ids[len(produced) :] + ([self.tokenizer.eos_token_id] if guess.endswith("}") or written.endswith("}") else [])

    def generate(self, requests: Sequence[str], batch_size: int = 32, progress: bool = False) -> list[str]:
        """The model's greedy output for each request, in the order given, without special tokens."""
        return [completion.text for completion in self.complete(requests, batch_size, progress)]

    @torch.inference_mode()
    def complete(
        self, requests: Sequence[str], batch_size: int = 32, progress: bool = False, grammar: Grammar | None = None
    ) -> list[Completion]:
        """The greedy completion of each request, in the order given; with a `grammar`, the greedy one among those it allows."""
        prompts = [self._prompt(request) for request in requests]
        order = sorted(range(len(prompts)), key=lambda n: -len(prompts[n]))
        completions: dict[int, Completion] = {}
        with tqdm(total=len(prompts), desc="routing", unit="request", disable=not progress) as bar:
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                for n, tokens in zip(batch, self._decode([prompts[n] for n in batch], grammar), strict=True):
                    completions[n] = self._completion(tokens)
                bar.update(len(batch))
        return [completions[n] for n in range(len(prompts))]

    def _completion(self, tokens: list[tuple[int, float]]) -> Completion:
        ids = [token for token, _ in tokens]
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        so_far = [self.tokenizer.decode(ids[:n], skip_special_tokens=True).rstrip("\ufffd") for n in range(len(ids))]  # half a character
        pieces = (after[len(before) :] for before, after in itertools.pairwise([*so_far, text]))
        return Completion(text, tuple(pieces), tuple(logprob for _, logprob in tokens))

    def _prompt(self, request: str) -> list[int]:
        return token_ids(self.tokenizer, to_messages(request, self.toolset, self._system_role))

    def _decode(self, prompts: list[list[int]], grammar: Grammar | None = None) -> list[list[tuple[int, float]]]:
        """Greedy decoding of a batch whose prompts begin alike, as (token, log-probability); a row leaves the batch when it ends."""
        device, rows = self.model.device, len(prompts)
        shared = min(_common_length(self._prefix, prompt) for prompt in prompts)
        shared = min(shared, min(len(prompt) for prompt in prompts) - 1)
        cache = self._prefix_cache(shared)
        cache.batch_repeat_interleave(rows)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        width = int(lengths.max()) - shared
        ids = torch.full((rows, width), self.tokenizer.pad_token_id, device=device)
        for n, prompt in enumerate(prompts):
            ids[n, : len(prompt) - shared] = torch.tensor(prompt[shared:])
        positions = torch.arange(shared, shared + width, device=device).expand(rows, width)
        mask = torch.arange(shared + width, device=device) < lengths[:, None]
        last, which = (lengths - shared - 1).unique(return_inverse=True)  # logits of every position would fill a small GPU
        logits = self.model(
            input_ids=ids, position_ids=positions, attention_mask=mask.long(), past_key_values=cache, use_cache=True, logits_to_keep=last
        ).logits
        produced: list[list[tuple[int, float]]] = [[] for _ in prompts]
        alive = torch.arange(rows, device=device)
        legal = grammar.start(rows) if grammar else None
        token = _pick(logits[alive, which], alive, produced, legal)
        for _ in range((MAX_NEW_TOKENS if legal is None else 5 * MAX_NEW_TOKENS) - 1):  # a grammar comes to an end by itself
            going = torch.tensor([t not in self._ends for t in token.tolist()], device=device)
            if not going.all():
                kept = going.nonzero().flatten()
                if len(kept) == 0:
                    break
                cache.batch_select_indices(kept)
                alive, mask, lengths, token = alive[kept], mask[kept], lengths[kept], token[kept]
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            logits = self.model(
                input_ids=token[:, None], position_ids=lengths[:, None], attention_mask=mask.long(), past_key_values=cache, use_cache=True
            ).logits
            token, lengths = _pick(logits[:, -1], alive, produced, legal), lengths + 1
        return produced

    def _prefix_cache(self, length: int) -> DynamicCache:
        """Keys and values of the catalogue's first `length` tokens, for one row."""
        cache = DynamicCache()
        if length:
            ids = torch.tensor([self._prefix[:length]], device=self.model.device)
            self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return cache


def _pick(logits: torch.Tensor, rows: torch.Tensor, produced: list[list[tuple[int, float]]], legal: Legal | None) -> torch.Tensor:
    """The likeliest token of each row (the likeliest legal one), written to `produced` with the log-probability the model gave it."""
    logprobs = logits.float().log_softmax(-1)
    token = (logits if legal is None else legal.only(logits, rows.tolist())).argmax(-1)
    chosen = logprobs.gather(1, token[:, None])[:, 0]
    for n, t, logprob in zip(rows.tolist(), token.tolist(), chosen.tolist(), strict=True):
        produced[n].append((t, logprob))
        if legal is not None:
            legal.accept(n, t)
    return token


def _common_length(left: Sequence[int], right: Sequence[int]) -> int:
    return next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


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
