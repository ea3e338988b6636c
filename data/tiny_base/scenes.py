"""Scenes as the model reads them: a catalogue and its turns packed into one sequence of tokens."""

import torch
from synthesis import Scene, Synthesis
from transformers import PreTrainedTokenizerFast

START, END = "<|im_start|>", "<|im_end|>"
LENGTH, BATCH, TURNS = 512, 8, 14  # tokens per sequence, sequences per step, turns offered to each


def pack(scenes: list[Scene], tokenizer: PreTrainedTokenizerFast) -> dict[str, torch.Tensor]:
    """Scenes as `[catalogue][turn][turn]…` rows of LENGTH tokens; each turn sees the catalogue and itself, positions restart after it.

    Returns input_ids, position_ids and labels of shape (scenes, LENGTH), and attention_mask (scenes, 1, LENGTH, LENGTH).
    """
    ids = torch.zeros(len(scenes), LENGTH, dtype=torch.long)
    positions, segments, labels = torch.zeros_like(ids), torch.full_like(ids, -1), torch.full_like(ids, -100)
    for row, scene in enumerate(scenes):
        texts = [f"{START}system\n{scene.system}{END}\n"]
        for turn in scene.turns:
            texts += [f"{START}user\n{turn.request}{END}\n{START}assistant\n", turn.answer + END]
        encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
        prefix = encoded[0]
        at = len(prefix)
        ids[row, :at], positions[row, :at], segments[row, :at] = torch.tensor(prefix), torch.arange(at), 0
        for number, (asked, answered) in enumerate(zip(encoded[1::2], encoded[2::2], strict=True), 1):
            end = at + len(asked) + len(answered)
            if end > LENGTH:
                break
            ids[row, at:end] = torch.tensor(asked + answered)
            positions[row, at:end] = len(prefix) + torch.arange(end - at)
            segments[row, at:end] = number
            labels[row, at + len(asked) : end] = torch.tensor(answered)
            at = end
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
