"""Scenes as the model reads them: a catalogue and its turns packed into one sequence of tokens."""

from dataclasses import dataclass

import torch
from synthesis import Scene, Synthesis
from transformers import PreTrainedTokenizerFast

START, END = "<|im_start|>", "<|im_end|>"
LENGTH, BATCH, TURNS = 512, 8, 14  # tokens per sequence, sequences per step, turns offered to each


@dataclass
class Part:
    """A stretch of a packed sequence: the catalogue (segment 0), or the request or answer of a turn (the turn's number)."""

    segment: int
    start: int
    text: str
    tokens: list[int]
    spans: list[tuple[int, int]]  # of `text`, for each token

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    def at(self, place: int) -> int:
        """The position in the sequence of the token that holds the text's character `place`."""
        return self.start + next(n for n, (_, end) in enumerate(self.spans) if end > place)


def layout(scene: Scene, tokenizer: PreTrainedTokenizerFast) -> list[Part]:
    """The catalogue, then request and answer of each turn in turn, as far as they fit into LENGTH."""
    texts = [f"{START}system\n{scene.system}{END}\n"]
    for turn in scene.turns:
        texts += [f"{START}user\n{turn.request}{END}\n{START}assistant\n", turn.answer + END]
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    parts, start = [], 0
    for n, (text, tokens, spans) in enumerate(zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True)):
        parts.append(Part((n + 1) // 2, start, text, tokens, spans))
        start += len(tokens)
    return [part for part in parts if max(p.end for p in parts if p.segment == part.segment) <= LENGTH]


def pack(scenes: list[Scene], tokenizer: PreTrainedTokenizerFast) -> dict[str, torch.Tensor]:
    """Scenes as `[catalogue][turn][turn]…` rows of LENGTH tokens; each turn sees the catalogue and itself, positions restart after it.

    Returns input_ids, position_ids and labels of shape (scenes, LENGTH), and attention_mask (scenes, 1, LENGTH, LENGTH).
    """
    ids = torch.zeros(len(scenes), LENGTH, dtype=torch.long)
    positions, segments, labels = torch.zeros_like(ids), torch.full_like(ids, -1), torch.full_like(ids, -100)
    for row, scene in enumerate(scenes):
        prefix, *turns = layout(scene, tokenizer)
        first: dict[int, int] = {}  # of each turn, where it starts
        for n, part in enumerate([prefix, *turns]):
            here = slice(part.start, part.end)
            ids[row, here], segments[row, here] = torch.tensor(part.tokens), part.segment
            shift = 0 if part is prefix else prefix.end - first.setdefault(part.segment, part.start)
            positions[row, here] = shift + torch.arange(part.start, part.end)
            if n and n % 2 == 0:
                labels[row, here] = torch.tensor(part.tokens)
    seen = (segments[:, None] == segments[:, :, None]) | (segments[:, None] == 0)  # [row, query, key]
    causal = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    return {"input_ids": ids, "position_ids": positions, "attention_mask": (seen & causal)[:, None], "labels": labels}


def fitting_scene(synthesis: Synthesis, tokenizer: PreTrainedTokenizerFast) -> Scene:
    """A scene whose catalogue leaves at least half of the sequence to its turns."""
    while len(tokenizer((scene := synthesis.scene(TURNS)).system)["input_ids"]) > LENGTH // 2:
        pass
    return scene


def letter_pieces(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The tokens that are runs of small letters, without their space: put together at random they are words that nobody could guess."""
    texts = (tokenizer.decode([token]).strip() for token in range(len(tokenizer)))
    return sorted({text for text in texts if text.isalpha() and text.islower()})
