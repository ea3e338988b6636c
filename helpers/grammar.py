"""Constrained decoding: the tokens that keep an output legal, from the catalogue's schema (optional: needs xgrammar)."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerBase

from helpers.tools import Toolset

if TYPE_CHECKING:
    import xgrammar

MAX_ARGUMENT = 300  # characters of a string argument; without a bound, a model that repeats itself runs into the end of its budget
# In a string of bounded length xgrammar 0.2.8 lets control characters through, which JSON forbids (mlc-ai/xgrammar, issue 800)
_XGRAMMARS_CHARACTER, _JSONS_CHARACTER = r"[^\"\\\r\n]", r"[^\"\\\0-\x1f]"


def decoding_schema(toolset: Toolset) -> dict[str, Any]:
    """`Toolset.output_schema` in the part of JSON Schema that a grammar can promise: strings of at most MAX_ARGUMENT characters.

    A grammar has no word for "not only blanks": an argument of blanks is legal to it, and is still refused by `parse_tool_call`; so is
    one that breaks a `pattern` of the tool's own. Nor can it write what JSON escapes: quotes, backslashes and line breaks.
    """
    return _bounded(toolset.output_schema())


def _bounded(node: Any) -> Any:
    if isinstance(node, list):
        return [_bounded(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _bounded(value) for key, value in node.items()}
    if node.get("type") == "string" and not node.keys() & {"enum", "const"}:
        node.pop("pattern", None)
        node["maxLength"] = min(MAX_ARGUMENT, node.get("maxLength", MAX_ARGUMENT))
    return node


class Grammar:
    """The legal outputs of a catalogue as an automaton over the tokens of one tokenizer.

    `vocabulary` is the width of the model's logits, which may be larger than the tokenizer. Raises RuntimeError when xgrammar is missing.
    """

    def __init__(self, toolset: Toolset, tokenizer: PreTrainedTokenizerBase, vocabulary: int):
        try:
            import xgrammar
        except ImportError:
            raise RuntimeError("constrained decoding needs the package xgrammar: pip install xgrammar") from None
        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocabulary, stop_token_ids=[tokenizer.eos_token_id])
        compiler = xgrammar.GrammarCompiler(info)
        self.vocabulary = vocabulary
        schema = json.dumps(decoding_schema(toolset))
        rules = str(xgrammar.Grammar.from_json_schema(schema, any_whitespace=False, separators=(",", ":")))
        self._compiled = compiler.compile_grammar(xgrammar.Grammar.from_ebnf(rules.replace(_XGRAMMARS_CHARACTER, _JSONS_CHARACTER)))

    def start(self, rows: int) -> "Legal":
        """A fresh state for each of `rows` completions."""
        import xgrammar

        return Legal([xgrammar.GrammarMatcher(self._compiled) for _ in range(rows)], self.vocabulary)


class Legal:
    """How far each completion of a batch has come in the grammar."""

    def __init__(self, matchers: "list[xgrammar.GrammarMatcher]", vocabulary: int):
        self._matchers, self._vocabulary = matchers, vocabulary

    def only(self, logits: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """`logits` of shape (len(rows), vocabulary) with minus infinity where a token would make that row's output illegal."""
        import xgrammar

        bitmask = xgrammar.allocate_token_bitmask(len(rows), self._vocabulary)
        for line, row in enumerate(rows):
            self._matchers[row].fill_next_token_bitmask(bitmask, line)
        logits = logits.float().clone()
        xgrammar.apply_token_bitmask_inplace(logits, bitmask.to(logits.device))
        return logits

    def accept(self, row: int, token: int) -> None:
        """Tell the grammar which token `row` took. Raises RuntimeError on one that it does not allow."""
        if not self._matchers[row].accept_token(token):
            raise RuntimeError(f"token {token} is not legal here; take one of those that only() leaves")
