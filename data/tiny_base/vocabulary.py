"""The tokens of the tiny base, and what its words mean before it has read a sentence.

What words mean is taken from a sentence encoder (all-MiniLM-L6-v2, Apache-2.0; Wang et al., 2020, arXiv:2002.10957; Reimers and Gurevych,
2019, arXiv:1908.10084), one word at a time. The principal components are the first columns of each word's embedding, and stay as they are
while the base is trained: a word that training never meets still stands beside those that mean the same.
"""

import re

import torch
from scenes import CHAT_TEMPLATE, END, PAD, START
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

VOCABULARY = 4096
SPACE = "Ġ"  # how byte-level tokens write a space
MEANING = 96  # columns of an embedding that say what a word means
WEIGHT = 0.7  # their length, where all of an embedding is about 1.2 long
RARELY = 3.0  # words of fewer than a thousand occurrences in a thousand million have no meaning here (as a power of ten)
PLAIN = 150  # most frequent words, for which no other word stands
LIKE = 0.55  # cosine from which on one word may stand for another


def build_tokenizer(texts: list[str], positions: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which every digit and every capital letter is a token of its own, so that ids are copied sign by sign."""
    tokenizer = Tokenizer(models.BPE())
    single = pre_tokenizers.Split(Regex("[0-9A-Z]"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([single, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[PAD, START, END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
    )


def common_words(n: int) -> list[str]:
    """The `n` most frequent words of English that are letters only (wordfreq's list; Speer, 2022), the most frequent first."""
    from wordfreq import top_n_list, zipf_frequency  # here: who uses the base does not need it

    words = [word for word in top_n_list("en", 2 * n + 1000) if re.fullmatch("[a-z]+", word) and (len(word) > 1 or word in "ai")]
    return [word for word in words[:n] if zipf_frequency(word, "en") >= RARELY]


@torch.no_grad()
def meanings(words: list[str], encoder: str) -> dict[str, torch.Tensor]:
    """What each word means: a unit vector of MEANING numbers, the principal components of the encoder's vectors for `words`."""
    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    vectors = []
    for start in tqdm(range(0, len(words), 256), desc="what words mean", mininterval=5):
        batch = tokenizer(words[start : start + 256], return_tensors="pt", padding=True)
        mask = batch["attention_mask"][..., None]
        pooled = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
        vectors.append(torch.nn.functional.normalize(pooled, dim=-1))
    centred = torch.cat(vectors)
    centred = centred - centred.mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    return dict(zip(words, torch.nn.functional.normalize(centred @ axes[:MEANING].T, dim=-1), strict=True))


def neighbours(meaning: dict[str, torch.Tensor], most: int = 4) -> dict[str, list[str]]:
    """For each word but the PLAIN ones up to `most` others that mean nearly the same, the nearest first."""
    words, vectors, found = [*meaning][PLAIN:], torch.stack([*meaning.values()])[PLAIN:], {}
    for word, near in zip(words, vectors @ vectors.T, strict=True):
        values, places = near.topk(most + 1)
        found[word] = [words[p] for v, p in zip(values.tolist(), places.tolist(), strict=True) if v >= LIKE and words[p] != word]
    return found


def meaning_columns(tokenizer: PreTrainedTokenizerFast, meaning: dict[str, torch.Tensor]) -> torch.Tensor:
    """The first MEANING columns of the embeddings, of shape (tokens, MEANING); zero for tokens that are no whole words."""
    words = [token.removeprefix(SPACE) for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]
    return WEIGHT * torch.stack([meaning[w] if len(w) > 2 and w in meaning else torch.zeros(MEANING) for w in words])
