"""Greedy decoding of a batch: one catalogue held once for all rows, and every step checks a draft of many tokens."""

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from helpers.drafting import Drafter
from helpers.grammar import Grammar, Legal
from helpers.models import sliding_window
from helpers.packing import SHARED_PREFIX, SharedPrefix, common_length

LOGITS = 2**26  # values in one step's logits: with a vocabulary of 150,000, a batch of 32 is drafted 12 tokens ahead
MAX_NEW_TOKENS = 160  # the longest answers of the support desk take about 60; what runs on past this is cut and will not parse


@dataclass(frozen=True)
class Completion:
    """What the model wrote for one request, token by token.

    `pieces` are the tokens' texts, which join to `text` (the token that ends the completion is an empty one); `logprobs` the natural
    logarithms of the probabilities that the model gave them; `steps` the forward passes it took.
    """

    text: str
    pieces: tuple[str, ...]
    logprobs: tuple[float, ...]
    steps: int


class Decoder:
    """One model, the prompt's tokens that its rows begin with, and drafts of what it may write.

    `ends` are the ids of the tokens that end a completion.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prefix: Sequence[int], drafter: Drafter):
        self.model, self.tokenizer, self.prefix, self.drafter = model.eval(), tokenizer, list(prefix), drafter
        ends = model.generation_config.eos_token_id
        self.ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        self._window = sliding_window(model) or math.inf
        self._holds_prefix = self._window == math.inf and model.config._attn_implementation in ("sdpa", SHARED_PREFIX)
        self._kept: DynamicCache | None = None

    @torch.inference_mode()
    def decode(self, prompts: Sequence[Sequence[int]], requests: Sequence[str], grammar: Grammar | None = None) -> list[Completion]:
        """The greedy completion of each prompt (token ids), drafted from its request; with a `grammar`, of what that allows.

        Each step feeds every row the token it chose last and a draft of what may follow, and keeps of the draft what the model would
        have chosen itself; a row leaves the batch when it ends.
        """
        rows, device, limit = len(prompts), self.model.device, MAX_NEW_TOKENS
        legal = grammar.start(rows) if grammar else None
        if legal:
            limit *= 5  # a grammar comes to an end by itself
        shared = min(min(common_length(self.prefix, prompt), len(prompt) - 1) for prompt in prompts)
        if rows > 1 and (not shared or max(map(len, prompts)) + limit > self._window):
            # one by one: padding would have nothing to see, or would count as tokens of a sliding window
            return [self.decode([prompt], [request], grammar)[0] for prompt, request in zip(prompts, requests, strict=True)]
        prefix = self._shared_prefix(shared) if self._holds_prefix else None
        cache = DynamicCache() if prefix else self._prefix_cache(shared)
        if not prefix:
            cache.batch_repeat_interleave(rows)
        drafts_leave_gaps = rows > 1 and self._window < math.inf  # where one row's draft held and another's did not
        vocabulary = self.model.config.get_text_config().vocab_size
        pending = [prompt[shared:] for prompt in prompts]
        produced: list[list[tuple[int, float]]] = [[] for _ in prompts]
        steps, alive = [0] * rows, list(range(rows))
        lengths = torch.full((rows,), shared, device=device)
        seen = torch.ones(rows, 0 if prefix else shared, dtype=torch.bool, device=device)
        while alive:
            room = 0 if drafts_leave_gaps else LOGITS // (len(alive) * vocabulary) - 1
            drafts = [self._draft(produced[n], requests[n], min(room, limit - len(produced[n]) - 1)) for n in alive]
            before, after = max(len(pending[n]) for n in alive), max(map(len, drafts))
            ids, fed = _side_by_side([pending[n] for n in alive], drafts, self.tokenizer.pad_token_id)
            ids, fed = ids.to(device), fed.to(device)
            logits = self.model(
                input_ids=ids,
                position_ids=(lengths[:, None] + fed.cumsum(1) - 1).clamp(min=0),
                attention_mask=torch.cat([seen, fed], dim=1).long(),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=after + 1,
                **({"shared_prefix": prefix} if prefix else {}),
            ).logits[:, -(after + 1) :]
            if prefix and prefix.met < len(prefix.layers):  # a model that does not hand it on to its attention
                self._holds_prefix = False
                return self.decode(prompts, requests, grammar)
            held, ended = self._verify(logits, drafts, alive, produced, legal)
            fed[:, before:] &= torch.arange(after, device=device) < torch.tensor(held, device=device)[:, None]
            lengths, seen = lengths + fed.sum(1), torch.cat([seen, fed], dim=1)
            for n in alive:
                steps[n], pending[n] = steps[n] + 1, [produced[n][-1][0]]
            going = [line for line, n in enumerate(alive) if not ended[line] and len(produced[n]) < limit]
            drop = after - max((held[line] for line in going), default=0)
            if drop:
                cache.crop(-drop)
                seen = seen[:, :-drop]
            if len(going) < len(alive):
                kept = torch.tensor(going, dtype=torch.long, device=device)
                cache.batch_select_indices(kept)
                alive, lengths, seen = [alive[line] for line in going], lengths[kept], seen[kept]
        return [self._completion(tokens, n) for tokens, n in zip(produced, steps, strict=True)]

    def _draft(self, produced: list[tuple[int, float]], request: str, room: int) -> list[int]:
        """Up to `room` tokens that may follow, as the tokenizer would write the whole; none when it would have written the beginning
        otherwise."""
        if room <= 0:
            return []
        so_far = [token for token, _ in produced]
        written = self.tokenizer.decode(so_far)
        guess = self.drafter.draft(written, request)
        ids = self.tokenizer(written + guess, add_special_tokens=False)["input_ids"]
        if ids[: len(so_far)] != so_far:
            return []
        ends = [self.tokenizer.eos_token_id] if guess.endswith("}") or written.endswith("}") else []
        return (ids[len(so_far) :] + ends)[:room]

    def _verify(
        self, logits: torch.Tensor, drafts: list[list[int]], rows: list[int], produced: list[list[tuple[int, float]]], legal: Legal | None
    ) -> tuple[list[int], list[bool]]:
        """Writes to `produced` what the model chooses at each position as long as it agrees with the draft, and the first token at
        which it does not; returns for each row how much of its draft held, and whether the row ended.
        """
        held, ended, agreeing = [0] * len(rows), [False] * len(rows), list(range(len(rows)))
        for position in range(logits.shape[1]):
            chosen = _pick(logits[agreeing, position], [rows[line] for line in agreeing], produced, legal)
            agreed = []
            for line, token in zip(agreeing, chosen, strict=True):
                ended[line] = token in self.ends
                if not ended[line] and drafts[line][position : position + 1] == [token]:
                    held[line] += 1
                    agreed.append(line)
            agreeing = agreed
            if not agreeing:
                break
        return held, ended

    def _completion(self, tokens: list[tuple[int, float]], steps: int) -> Completion:
        ids = [token for token, _ in tokens]
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        so_far = [self.tokenizer.decode(ids[:n], skip_special_tokens=True).rstrip("\ufffd") for n in range(len(ids))]  # half a character
        pieces = (after[len(before) :] for before, after in itertools.pairwise([*so_far, text]))
        return Completion(text, tuple(pieces), tuple(logprob for _, logprob in tokens), steps)

    def _shared_prefix(self, length: int) -> SharedPrefix | None:
        """Keys and values of the catalogue's first `length` tokens, to be held once for all rows; None when there are none."""
        layers = [(layer.keys[:, :, :length], layer.values[:, :, :length]) for layer in self._catalogue().layers] if length else []
        return SharedPrefix(layers) if layers else None

    def _prefix_cache(self, length: int) -> DynamicCache:
        """The same as a cache of one row, to be repeated."""
        cache = copy.deepcopy(self._catalogue())
        if length < len(self.prefix):
            cache.crop(length - len(self.prefix))
        return cache

    def _catalogue(self) -> DynamicCache:
        """The whole prefix, computed once, for the model as it was then."""
        if self._kept is None:
            if self._holds_prefix:
                self.model.set_attn_implementation(SHARED_PREFIX)  # which is sdpa where no prefix is given
            self._kept = DynamicCache()
            if self.prefix:
                ids = torch.tensor([self.prefix], device=self.model.device)
                self.model(input_ids=ids, past_key_values=self._kept, use_cache=True, logits_to_keep=1)
        return self._kept


def _side_by_side(pending: list[list[int]], drafts: list[list[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of shape (rows, length), what was chosen ending and the draft beginning at the same column, and which are no padding."""
    before, after = (max(map(len, lists)) for lists in (pending, drafts))
    lines = [[padding] * (before - len(p)) + p + d + [padding] * (after - len(d)) for p, d in zip(pending, drafts, strict=True)]
    columns = torch.arange(before + after)
    starts, ends = (torch.tensor(at)[:, None] for at in ([before - len(p) for p in pending], [before + len(d) for d in drafts]))
    return torch.tensor(lines), (columns >= starts) & (columns < ends)


def _pick(logits: torch.Tensor, rows: list[int], produced: list[list[tuple[int, float]]], legal: Legal | None) -> list[int]:
    """The likeliest token of each row (the likeliest legal one), written to `produced` with the log-probability the model gave it."""
    logprobs = logits.float().log_softmax(-1)
    token = (logits if legal is None else legal.only(logits, rows)).argmax(-1)
    chosen = logprobs.gather(1, token[:, None])[:, 0]
    for n, t, logprob in zip(rows, token.tolist(), chosen.tolist(), strict=True):
        produced[n].append((t, logprob))
        if legal is not None:
            legal.accept(n, t)
    return token.tolist()
