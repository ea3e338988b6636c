"""A base that fits the machine: which one, in which precision, on which device, in 4 bits or whole."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from helpers.paths import TINY_BASE

HUB_BASE = "Qwen/Qwen2.5-0.5B-Instruct"  # 0.5 B parameters, Apache-2.0, no account needed
SMALL = 50_000_000  # parameters; a base below this needs the tiny recipe, not the lesson's, and no 4 bits to fit a machine

logging.set_verbosity_error()  # load reports would bury what a notebook is about


@dataclass(frozen=True)
class Precision:
    """How this machine computes: the dtype of activations, and the two flags of the trainer."""

    dtype: torch.dtype
    bf16: bool
    fp16: bool


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def precision() -> Precision:
    """bf16 from compute capability 8 on, fp16 below, fp32 without CUDA.

    `torch.cuda.is_bf16_supported()` is not asked: it says yes on a T4, where bf16 is emulated and slow.
    """
    if not torch.cuda.is_available():
        return Precision(torch.float32, bf16=False, fp16=False)
    if torch.cuda.get_device_capability()[0] >= 8:
        return Precision(torch.bfloat16, bf16=True, fp16=False)
    return Precision(torch.float16, bf16=False, fp16=True)


def default_base() -> str:
    """`COURSE_BASE` when it is set; else a small Hub model with CUDA and the embedded tiny base without."""
    return absolute(os.environ.get("COURSE_BASE") or (HUB_BASE if torch.cuda.is_available() else str(TINY_BASE)))


def absolute(name: str) -> str:
    """A folder's absolute path, so that an adapter finds its base from anywhere; a Hub name as it is."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def base_label(name: str) -> str:
    """The base's name for tables and recipes: the same on every machine."""
    return "tiny_base" if Path(name).resolve() == TINY_BASE else name


def count_parameters(name: str) -> int:
    """Parameters of a base, counted from its configuration without loading a weight."""
    config = _from_pretrained(AutoConfig, name)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config).num_parameters()


def is_small(name: str) -> bool:
    """Whether a base is one of a few million parameters, as the embedded one."""
    return count_parameters(name) < SMALL


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The base's tokenizer, with a chat template and a padding token. Raises RuntimeError or ValueError saying what to do."""
    tokenizer = _from_pretrained(AutoTokenizer, name)
    if not tokenizer.chat_template:
        raise ValueError(f"{name} has no chat template, so it was never taught to answer; choose an instruct model (COURSE_BASE=...)")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def accepts_system_role(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template takes a system message (Gemma 1 and 2 refuse one)."""
    try:
        text = tokenizer.apply_chat_template([{"role": "system", "content": "§"}, {"role": "user", "content": "?"}], tokenize=False)
    except Exception:  # templates raise whatever Jinja raises
        return False
    return "§" in text


def sliding_window(model: PreTrainedModel) -> int | None:
    """How many tokens the layers look back that do not see all of them (Gemma 3 has such); None where every layer does."""
    config = model.config.get_text_config()
    window, layers = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    return window if layers is None or "sliding_attention" in layers else None


def nf4() -> BitsAndBytesConfig:
    """Linear layers in 4 bits: NF4 with double quantisation (Dettmers et al., 2023), computing in this machine's precision."""
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=precision().dtype
    )


def load_base(name: str, four_bit: bool = True) -> PreTrainedModel:
    """The base on this machine's device; `four_bit` quantises its linear layers to NF4 with double quantisation (bitsandbytes).

    Load afresh to train what has been evaluated: on some CPUs the first forward pass in eval mode repacks 4-bit weights, and
    gradients are zero from then on.
    """
    options = {"dtype": precision().dtype, "device_map": {"": device()}, "quantization_config": nf4() if four_bit else None}
    try:
        return _from_pretrained(AutoModelForCausalLM, name, attn_implementation="sdpa", **options)
    except ValueError as error:  # Gemma 2, for one, has only the slow attention
        if "scaled_dot_product_attention" not in str(error):
            raise
        return _from_pretrained(AutoModelForCausalLM, name, attn_implementation="eager", **options)


def _from_pretrained(factory: type, name: str, **options):
    if Path(name).is_absolute() and not Path(name).is_dir():
        raise FileNotFoundError(f"no model at {name}; restore data/tiny_base with git, or name another base with COURSE_BASE")
    if Path(name).is_dir():
        logging.disable_progress_bar()  # a second or less; a download keeps its bar
    else:
        logging.enable_progress_bar()
    try:
        return factory.from_pretrained(name, **options)
    except OSError as error:
        raise RuntimeError(
            f"cannot load {name}: {str(error).splitlines()[0]} If the Hugging Face Hub is out of reach or the model needs an account, "
            f"set COURSE_BASE to a model on this machine; the embedded one is COURSE_BASE={TINY_BASE}"
        ) from error
