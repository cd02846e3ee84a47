"""An untrained encoder in BGE's form: a small BERT with one token a character, whose look-alikes start near each other.

It knows characters and their shapes (`caprag.glyphs`), nothing of how it is trained.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from caprag.glyphs import GlyphTable
from caprag.text import match_form, normalize
from caprag.training.saving import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CHARSETS = ("big5hkscs", "gb2312", "shift_jis")
_LETTER_BLOCKS = ((0x3041, 0x3096), (0x30A1, 0x30FA), (0x3105, 0x312F), (0x31A0, 0x31BF))
# Lengths of the three parts of a starting vector; the layer norm behind them sees their sum.
_SHAPE, _VARIANT, _OWN = 0.25, 0.2, 0.05


@dataclass(frozen=True, slots=True)
class Architecture:
    """The size of an encoder.

    Attributes
    ----------
    hidden
        Width, and length of the vectors; a multiple of `heads`, at least 64.
    layers, heads
        Numbers of layers and of attention heads, >= 1.
    intermediate
        Width of the feed-forward layers; ``None`` is four times `hidden`.
    max_length
        Most tokens of a text, first and last included; longer texts are cut.
    """

    hidden: int = 128
    layers: int = 2
    heads: int = 4
    intermediate: int | None = None
    max_length: int = 64

    def __post_init__(self) -> None:
        if self.hidden < 64 or self.heads < 1 or self.hidden % self.heads:
            raise ValueError(
                f"hidden is {self.hidden} and heads is {self.heads}; at least 64, and a multiple of heads, is needed"
            )
        if self.layers < 1 or self.max_length < 3:
            raise ValueError(f"layers is {self.layers} and max_length {self.max_length}; at least 1 and 3 are needed")


@functools.cache
def character_vocabulary() -> tuple[str, ...]:
    """Return the characters of the vocabulary, sorted.

    Those of the glyph table (Big5, GB 2312, kana, bopomofo, ASCII), of Hong Kong's supplementary set and of Shift JIS,
    each as it stands in the written form and in lower case.
    """
    found = set(GlyphTable.load().characters)
    for charset in _CHARSETS:
        for high in range(0x81, 0xFF):
            for low in range(0x40, 0xFF):
                found.update(bytes([high, low]).decode(charset, "ignore"))
    for first, last in _LETTER_BLOCKS:
        found.update(map(chr, range(first, last + 1)))
    written = {c for character in found for c in normalize(character).lower()}
    return tuple(sorted(c for c in written | set(GlyphTable.load().characters) if not c.isspace()))


def vocabulary(characters: Sequence[str]) -> dict[str, int]:
    """Return the word pieces for some characters: each alone, and as a part of a word where words are not cut.

    The tokenizer cuts ideographs and punctuation apart, and takes what else stands together (Latin, kana, bopomofo,
    digits) for a word, whose later characters need pieces of their own.

    Examples
    --------
    >>> list(vocabulary(["a", "中", "!"]))[5:]
    ['a', '中', '!', '##a']
    """
    inner = [f"##{c}" for c in characters if c.isalnum() and not _is_ideograph(c)]
    return {token: i for i, token in enumerate([*SPECIAL, *characters, *inner])}


def _is_ideograph(character: str) -> bool:
    # The blocks that BERT's tokenizer cuts apart.
    code = ord(character)
    return (
        0x3400 <= code <= 0x4DBF or 0x4E00 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x2CEAF
        or 0x2F800 <= code <= 0x2FA1F
    )  # fmt: skip


def initial_embeddings(tokens: Mapping[str, int], hidden: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Return token vectors to start from: look-alikes near each other, and variants of a character too.

    Parameters
    ----------
    tokens
        Token to row, rows from 0 without gaps.
    hidden
        Length of a vector, at least that of a shape (64).
    seed
        Of all that is drawn.

    Returns
    -------
    numpy.ndarray
        Shape (len(tokens), hidden), float32. A vector is the sum of the character's shape, turned into `hidden`
        dimensions, of a random one that its regional variants share, and of a small one of its own.

    Raises
    ------
    ValueError
        Where `hidden` is less than the length of a shape.
    """
    glyphs = GlyphTable.load()
    shape = glyphs.vectors.shape[1]
    if hidden < shape:
        raise ValueError(f"hidden is {hidden}; at least {shape}, the length of a shape, is needed")
    generator = np.random.default_rng(seed)
    # A random rotation spreads the shape over all dimensions.
    spread = np.linalg.qr(generator.normal(size=(hidden, hidden)))[0][:shape]
    table = generator.normal(scale=_OWN / hidden**0.5, size=(len(tokens), hidden))
    shared: dict[str, npt.NDArray[np.float64]] = {}
    for token, row in sorted(tokens.items(), key=lambda item: item[1]):
        character = token.removeprefix("##")
        if len(character) != 1:
            continue
        form = match_form(character) or character
        if form not in shared:
            shared[form] = generator.normal(scale=_VARIANT / hidden**0.5, size=hidden)
        table[row] += shared[form]
        place = glyphs.index.get(character)
        if place is not None:
            table[row] += _SHAPE * glyphs.vectors[place] @ spread
    return table.astype(np.float32)


def new_encoder(folder: Path, architecture: Architecture | None = None, *, seed: int = 0) -> None:
    """Write an untrained encoder with its tokenizer, as transformers loads it.

    Parameters
    ----------
    folder
        Where to; made where it is missing.
    architecture
        Its size; ``None`` takes the defaults.
    seed
        Of all weights; same seed, same bytes.
    """
    import torch
    from transformers import BertConfig, BertModel

    size = architecture or Architecture()
    tokenizer = _tokenizer(vocabulary(character_vocabulary()), size.max_length)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=size.hidden, num_hidden_layers=size.layers,
        num_attention_heads=size.heads, intermediate_size=size.intermediate or 4 * size.hidden,
        max_position_embeddings=size.max_length, attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # With the pooler that nobody uses: loaders complain of a checkpoint without one.
        model = BertModel(config)
    table = torch.from_numpy(initial_embeddings(tokenizer.get_vocab(), size.hidden, seed))
    model.embeddings.word_embeddings.weight.data.copy_(table)
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _tokenizer(tokens: Mapping[str, int], max_length: int) -> PreTrainedTokenizerBase:
    from transformers import BertTokenizer

    return BertTokenizer(
        vocab=dict(tokens), do_lower_case=True, strip_accents=False, tokenize_chinese_chars=True,
        model_max_length=max_length,
    )  # fmt: skip
