"""A trained encoder as the folder that SentenceTransformer and FlagModel both open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Literal, get_args

from caprag.errors import ModelError

PoolingMethod = Literal["cls", "mean", "last_token"]
_POOLING_MODES = {"cls": "cls", "mean": "mean", "last_token": "lasttoken"}


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing a bar for each file of a small model."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def check_pooling(pooling: str) -> None:
    """Raise ValueError for an unknown pooling."""
    if pooling not in get_args(PoolingMethod):
        raise ValueError(f"pooling is {pooling!r}; known are {', '.join(get_args(PoolingMethod))}")


def save_embedder(
    encoder: str | PathLike[str],
    out: str | PathLike[str],
    *,
    pooling: PoolingMethod = "cls",
    normalize: bool = True,
    max_length: int | None = None,
    half: bool = False,
) -> int:
    """Write an encoder with its head as a SentenceTransformer, whose folder FlagModel opens too.

    Parameters
    ----------
    encoder
        Folder of a plain transformers encoder with its tokenizer.
    out
        Where to; made where it is missing.
    pooling
        Which vector stands for a text; BGE's is the first token's.
    normalize
        Whether vectors get length 1.
    max_length
        Most tokens of a text; ``None`` leaves it to the encoder.
    half
        Store the weights in half precision; they are computed with as the loader says.

    Returns
    -------
    int
        Size of the folder in bytes.

    Raises
    ------
    ModelError
        Where the encoder can't be loaded.
    ValueError
        For an unknown pooling.

    References
    ----------
    Xiao et al., C-Pack: Packed Resources For General Chinese Embeddings, SIGIR 2024: BGE's head.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    check_pooling(pooling)
    with quiet():
        try:
            with torch.random.fork_rng():
                # What the folder lacks, a pooler say, is drawn; nobody uses it, and the bytes are the same each time.
                torch.manual_seed(0)
                body = Transformer(fspath(encoder), max_seq_length=max_length, model_kwargs={"dtype": torch.float32})
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ModelError(f"{encoder}: is not loaded as an encoder ({reason}); check the folder") from error
        head = Pooling(body.get_embedding_dimension(), pooling_mode=_POOLING_MODES[pooling])
        model = SentenceTransformer(modules=[body, head, *([Normalize()] if normalize else [])], device="cpu")
        if half:
            model = model.half()
        # The model card is written by who knows the data.
        model.save_pretrained(fspath(out), create_model_card=False)
    return folder_size(out)


def folder_size(folder: str | PathLike[str]) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
