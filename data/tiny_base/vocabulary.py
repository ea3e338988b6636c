"""More words for the tiny base's tokenizer, and what words mean before it has read a sentence.

What words mean is taken from a sentence encoder (all-MiniLM-L6-v2, Apache-2.0; Wang et al., 2020, arXiv:2002.10957; Reimers and Gurevych,
2019, arXiv:1908.10084), one word at a time; how often they are said from wordfreq (Speer, 2022). Only who builds a base needs either.
"""

import itertools
import json
import re
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
SPACE = "Ġ"  # how byte-level tokens write a space
KNOWN, TOKENS = 12_000, 5000  # words whose meaning is known, and those of them that become tokens of their own
SHORTEST = 3  # letters of a word that has a meaning of its own
PLAIN = 150  # most frequent words, for which no other word stands
LIKE = 0.55  # cosine from which on one word may stand for another
HALF = 1e-3  # share of all words: what is said as often as this tells half as much as what is hardly ever said (Arora et al., 2017)
NEXT_TO_NOTHING = 1e-3  # what a token tells that is no word


@dataclass
class Words:
    """The most frequent words first, how much each tells, in (0, 1], of shape (words,), and their meanings, (words, size), 1 long."""

    words: list[str]
    telling: list[float]
    meanings: torch.Tensor

    def places(self, tokenizer: PreTrainedTokenizerFast) -> dict[int, int]:
        """For each token that is one of the words, with a space before it or without, the place of that word."""
        places = {word: place for place, word in enumerate(self.words)}
        texts = [token.removeprefix(SPACE) for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]
        return {token: places[text] for token, text in enumerate(texts) if text in places}

    def token_telling(self, tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
        """How much each token tells, of shape (tokens,)."""
        telling = torch.full((len(tokenizer),), NEXT_TO_NOTHING)
        for token, place in self.places(tokenizer).items():
            telling[token] = self.telling[place]
        return telling


@torch.no_grad()
def read_words(encoder: str, size: int) -> Words:
    """KNOWN words of English; their meanings are the `size` principal components of the encoder's vectors."""
    from wordfreq import top_n_list, word_frequency  # here: who uses the base does not need it

    words = [word for word in top_n_list("en", 3 * KNOWN) if re.fullmatch(f"[a-z]{{{SHORTEST},}}", word)][:KNOWN]
    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    vectors = []
    for start in tqdm(range(0, len(words), 256), desc="what words mean", mininterval=5):
        batch = tokenizer(words[start : start + 256], return_tensors="pt", padding=True)
        mask = batch["attention_mask"][..., None]
        pooled = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
        vectors.append(torch.nn.functional.normalize(pooled, dim=-1))
    centred = torch.cat(vectors) - torch.cat(vectors).mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False)[2][:size]
    telling = [HALF / (HALF + word_frequency(word, "en")) for word in words]
    return Words(words, telling, torch.nn.functional.normalize(centred @ axes.T, dim=-1))


def neighbours(words: Words, most: int = 4) -> dict[str, list[str]]:
    """For each word but the PLAIN ones up to `most` others that mean nearly the same, the nearest first."""
    names, vectors, found = words.words[PLAIN:], words.meanings[PLAIN:], {}
    for name, near in zip(names, vectors @ vectors.T, strict=True):
        values, places = near.topk(most + 1)
        found[name] = [names[p] for v, p in zip(values.tolist(), places.tolist(), strict=True) if v >= LIKE and names[p] != name]
    return found


def extend(tokenizer: PreTrainedTokenizerFast, words: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer that has each of the words, after a space and without one, as one token; its other tokens keep their numbers.

    The new merges come after all others, so text in which none applies is split as before.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocab = state["model"]["vocab"]
    rank = {tuple(merge): n for n, merge in enumerate(state["model"]["merges"])}
    for word in [SPACE + word for word in words] + words:
        while len(parts := _split(word, rank)) > 1:
            vocab.setdefault(parts[0] + parts[1], len(vocab))
            rank[parts[0], parts[1]] = len(rank)
    state["model"]["merges"] = [list(merge) for merge in rank]
    options = {"pad_token": tokenizer.pad_token, "eos_token": tokenizer.eos_token, "chat_template": tokenizer.chat_template}
    options |= {"model_max_length": tokenizer.model_max_length, "clean_up_tokenization_spaces": False}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), **options)


def _split(word: str, rank: dict[tuple[str, str], int]) -> list[str]:
    """The word's tokens: of all neighbours that have a merge, those of the earliest are joined first."""
    parts = list(word)
    while known := [(rank[pair], n) for n, pair in enumerate(itertools.pairwise(parts)) if pair in rank]:
        n = min(known)[1]
        parts[n : n + 2] = [parts[n] + parts[n + 1]]
    return parts


def spaced_pairs(tokenizer: PreTrainedTokenizerFast) -> list[tuple[int, int]]:
    """Tokens that are a word without a space, each with the one that is the same word after a space."""
    vocab = tokenizer.get_vocab()
    words = (t for t in vocab if t.isalpha() and t.islower() and len(t) >= SHORTEST)
    return [(vocab[word], vocab[SPACE + word]) for word in words if SPACE + word in vocab]
