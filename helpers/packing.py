"""Many rows, one catalogue: batches in which the prompt that rows share is computed once, for training and for decoding."""

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

IGNORED = -100  # the label that keeps a token out of the loss
MAX_PACKED = 4096  # tokens in one sequence, for the sake of memory
SHARED_PREFIX = "shared_prefix"  # the attention below, by the name that `model.set_attn_implementation` takes
SCORES = 2**26  # of a step's queries with a prefix, held at once
BLOCK = 256  # queries that meet their keys at once in it: fewer are more calls, more are more masked scores

Row = tuple[list[int], list[int]]  # input_ids, labels


class SharedPrefixCollator:
    """Packs a batch as `[prefix][row][row]…`: the prompt that the rows have in common stands, and is computed, once.

    Each row sees the prefix and itself (a 4-D boolean mask) at the positions it would have alone, so loss and gradients equal those
    of padded rows up to rounding. The prefix never reaches a row's last prompt token, which predicts the completion. Rows under
    different catalogues are grouped by theirs. Rows are spread evenly over sequences, each with its prefix: over as many as cost least,
    and keep to about `max_packed` tokens (a row that is longer alone has a sequence of its own). In one long sequence the prefix is
    computed once, but attention, whose cost grows with the square, may cost more than that saves: `attention_width` is the length at
    which attention costs as much as the layers' matrices, which is about 6 times a model's width.

    Takes features with `input_ids` and `labels`; returns `input_ids`, `position_ids`, `labels` of shape (sequences, length) and
    `attention_mask` of shape (sequences, 1, length, length).
    """

    def __init__(self, pad_token_id: int, max_packed: int = MAX_PACKED, attention_width: float = math.inf):
        self.pad_token_id, self.max_packed, self.attention_width = pad_token_id, max_packed, attention_width

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        rows = sorted((list(f["input_ids"]), list(f["labels"])) for f in features)
        packs = [_pack(part, shared) for group, shared in _groups(rows) for part in self._parts(group, shared)]
        length = max(len(ids) for ids, *_ in packs)
        ids = torch.full((len(packs), length), self.pad_token_id)
        positions, labels, owner = torch.zeros_like(ids), torch.full_like(ids, IGNORED), torch.full_like(ids, -1)
        for n, pack in enumerate(packs):
            for tensor, values in zip((ids, positions, labels, owner), pack, strict=True):
                tensor[n, : len(values)] = torch.tensor(values)
        query, key = owner[:, :, None], owner[:, None, :]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        mask = ((key == 0) | (key == query)) & (query >= 0) & causal
        mask[:, :, 0] |= owner < 0  # padding has to see something, or its softmax is nan
        return {"input_ids": ids, "position_ids": positions, "attention_mask": mask[:, None], "labels": labels}

    def _parts(self, rows: list[Row], shared: int) -> list[list[Row]]:
        """The rows dealt to the cheapest number of sequences, the longest row first to the emptiest sequence."""
        total = sum(len(ids) - shared for ids, _ in rows)
        fewest = min(len(rows), math.ceil(total / max(1, self.max_packed - shared)))

        def cost(sequences: int) -> float:
            length = shared + total / sequences
            return sequences * length * (1 + length / self.attention_width)

        parts: list[list[Row]] = [[] for _ in range(min(range(fewest, len(rows) + 1), key=cost))]
        for row in sorted(rows, key=lambda row: -len(row[0])):
            min(parts, key=lambda part: sum(len(ids) - shared for ids, _ in part)).append(row)
        return parts


def shared_prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    shared_prefix: "SharedPrefix | None" = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """The output of `sdpa`, without most of the scores that the mask of a packed batch throws away.

    Up to its second row a sequence is plain causal text, of which the kernel leaves half out. After that, each block of queries meets
    the prefix and the keys from its own first row on. Any other mask than a square boolean one that looks back goes to `sdpa` as it is.

    Takes and returns what transformers' attention functions do: `query`, `key`, `value` of shape (sequences, heads, length, head
    size), `attention_mask` of (sequences, 1, length, length); the output is of shape (sequences, length, heads, head size). With
    `shared_prefix`, a `SharedPrefix`, every query sees its tokens before those of `key`.
    """
    if shared_prefix is not None:
        return shared_prefix.attend(module.layer_idx, query, key, value, attention_mask, options.get("scaling")), None
    plan = None if attention_mask is None or attention_mask.dtype != torch.bool else _plan(attention_mask)
    if plan is None or attention_mask.shape[2:] != (query.shape[2], key.shape[2]):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    causal, blocks = plan
    outputs = []
    if causal:  # with keys repeated here: without a mask sdpa would share them among queries, for which small GPUs have no fast kernel
        groups = query.shape[1] // key.shape[1]
        keys, values = (repeat_kv(x[:, :, :causal], groups) for x in (key, value))
        outputs.append(sdpa_attention_forward(module, query[:, :, :causal], keys, values, None, **options)[0])
    for start, end, prefix, own in blocks:
        keys, values, mask = (
            torch.cat([x.narrow(dim, 0, prefix), x.narrow(dim, own, end - own)], dim)
            for x, dim in ((key, 2), (value, 2), (attention_mask[:, :, start:end], 3))
        )
        outputs.append(sdpa_attention_forward(module, query[:, :, start:end], keys, values, mask, **options)[0])
    return torch.cat(outputs, dim=1), None


class SharedPrefix:
    """Keys and values, held once, of the tokens that all rows of a batch begin with; a model in `shared_prefix` attention takes it as
    the argument of that name, and its own cache then begins after them.

    A cache that is repeated for each row is copied at each step: with a catalogue of 4,000 tokens and 32 rows of a tiny model
    that is a gigabyte for one token a row.
    """

    def __init__(self, layers: Sequence[tuple[torch.Tensor, torch.Tensor]]):
        """`layers` are the keys and values of each, of shape (1, key heads, length, head size)."""
        self.layers, self.met = list(layers), 0  # how often attention met it: not at all in a model that does not hand it on

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float | None
    ) -> torch.Tensor:
        """Attention to the prefix and to each row's own keys, which are those of this and earlier steps; shapes as above.

        The two parts are softmaxed apart and put together by their sums (Milakov and Gimelshein, arXiv:1805.02867).
        """
        self.met += 1
        rows, heads, length, size = query.shape
        scaling, groups = size**-0.5 if scaling is None else scaling, heads // key.shape[1]
        if mask is None:
            mask = torch.ones(length, key.shape[2], dtype=torch.bool, device=key.device).tril(key.shape[2] - length)
        own = _weighted(query, repeat_kv(key, groups), repeat_kv(value, groups), scaling, mask)
        keys, values = (x[0] for x in self.layers[layer])
        queries = query.unflatten(1, (-1, groups)).transpose(0, 1).flatten(1, 3)  # (key heads, rows * groups * length, head size)
        pieces = [_weighted(piece, keys, values, scaling) for piece in queries.split(max(1, SCORES // keys[..., 0].numel()), dim=1)]
        shape = (len(keys), rows, groups, length)
        before = [torch.cat(parts, dim=1).unflatten(1, shape[1:]).transpose(0, 1).flatten(1, 2) for parts in zip(*pieces, strict=True)]
        top = torch.maximum(own[0], before[0])
        shares = [(part[0] - top).exp() for part in (own, before)]
        total = own[1] * shares[0] + before[1] * shares[1]
        return ((own[2] * shares[0] + before[2] * shares[1]) / total).to(query.dtype).transpose(1, 2).contiguous()


def _weighted(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each query's scores the highest, and relative to it the sum of their exponentials and the values so weighted.

    In float32: in float16 the scores of some models (Qwen2) overflow.
    """
    scores = (query.float() * scaling) @ key.float().mT
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    top = scores.amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).min)  # where nothing is seen
    weights = (scores - top).exp_()
    return top, weights.sum(-1, keepdim=True), weights @ value.float()


@lru_cache(maxsize=1)  # every layer of a model is given the same mask, and tensors are told apart by identity
def _plan(mask: torch.Tensor) -> tuple[int, list[tuple[int, int, int, int]]] | None:
    """How many queries are plain causal text, and of each block of the others: start, end, end of the prefix and start of its own keys.

    None for a mask that is not square, differs between heads, or looks ahead.
    """
    heads, length = mask.shape[1:3]
    back = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    if heads != 1 or mask.shape[3] != length or bool((mask & ~back).any()):
        return None
    other = (mask[:, 0] != back).any(dim=2).any(dim=0)
    causal = int(other.int().argmax()) if bool(other.any()) else length
    count = math.ceil((length - causal) / BLOCK)
    edges = [causal + (length - causal) * n // max(1, count) for n in range(count + 1)]
    seen, blocks = mask.any(dim=0)[0], []
    for start, end in itertools.pairwise(edges):
        keys = seen[start:end, :end].any(dim=0)
        prefix = end if bool(keys.all()) else int(keys.int().argmin())
        blocks.append((start, end, prefix, end if prefix == end else prefix + int(keys[prefix:].int().argmax())))
    return causal, blocks


AttentionInterface.register(SHARED_PREFIX, shared_prefix_attention)
AttentionMaskInterface.register(SHARED_PREFIX, sdpa_mask)  # for rows that are padded, not packed


def _pack(rows: list[Row], shared: int) -> tuple[list[int], list[int], list[int], list[int]]:
    """One sequence as ids, positions, labels, and the row each token belongs to (0: the prefix)."""
    ids, positions, labels, owner = rows[0][0][:shared], list(range(shared)), [IGNORED] * shared, [0] * shared
    for number, (row_ids, row_labels) in enumerate(rows, 1):
        ids += row_ids[shared:]
        positions += range(shared, len(row_ids))
        labels += row_labels[shared:]
        owner += [number] * (len(row_ids) - shared)
    return ids, positions, labels, owner


def _groups(rows: list[Row]) -> list[tuple[list[Row], int]]:
    """Sorted rows in groups, each with the length of its shared prefix.

    A row joins the group before it when the tokens it saves so outweigh those that a shorter prefix makes the others repeat.
    """
    groups: list[tuple[list[Row], int]] = []
    for row in rows:
        if groups:
            members, before = groups[-1]
            after = _shared_length([*members, row])
            if after > (before - after) * len(members):
                groups[-1] = ([*members, row], after)
                continue
        groups.append(([row], max(0, _prompt_length(row) - 1)))
    return groups


def _shared_length(rows: list[Row]) -> int:
    """Tokens that sorted rows begin with in common, ending before the last prompt token of the shortest prompt."""
    limit = max(0, min(_prompt_length(row) for row in rows) - 1)
    first, last = rows[0][0][:limit], rows[-1][0][:limit]  # of sorted rows, these two part the earliest
    return common_length(first, last)


def common_length(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def _prompt_length(row: Row) -> int:
    return next((n for n, label in enumerate(row[1]) if label != IGNORED), len(row[1]))
