"""The same pictures straight to training, without a disk in between."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from caprag.errors import FrameError
from caprag.synthesis.generator import Synthesizer
from caprag.synthesis.pictures import Picture
from caprag.synthesis.run import Sentences


def as_item(picture: Picture) -> dict[str, Any]:
    """Return a picture as ``{"number": int, "image": PIL image, "text": str}``."""
    from PIL import Image

    return {"number": picture.number, "image": Image.fromarray(picture.pixels), "text": picture.label.text}


def _warn(error: FrameError) -> None:
    warnings.warn(str(error), stacklevel=2)


class CaptionPictures(IterableDataset[Any]):
    """A stream of the pictures that `synthesize` writes, as they are before they are encoded.

    A background that can't be decoded is warned of, and another one takes its place. A data loader's workers and the
    processes of a distributed run share the numbers among them; together they give each picture once.

    Parameters
    ----------
    sentences
        What is drawn.
    synthesizer
        How it is drawn.
    start
        Number of the first picture, to go on where a training stopped.
    stop
        Number after the last one; ``None`` stops after the sentences' count, and a number beyond it goes on with
        further passes over the text, each in another order.
    rank, world_size
        This process among those of a distributed run.
    transform
        Makes an item of a `Picture`; by default `as_item`.

    Raises
    ------
    ValueError
        For a start, rank or world size out of range.
    """

    def __init__(
        self,
        sentences: Sentences,
        synthesizer: Synthesizer,
        *,
        start: int = 0,
        stop: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        transform: Callable[[Picture], Any] = as_item,
    ) -> None:
        super().__init__()
        stop = sentences.count if stop is None else stop
        if not 0 <= start <= stop:
            raise ValueError(f"start is {start}; it goes from 0 to stop, which is {stop}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank} of {world_size}; it goes from 0 to the world size less one")
        self.sentences, self.synthesizer, self.transform = sentences, copy.copy(synthesizer), transform
        self.synthesizer.backgrounds = copy.copy(synthesizer.backgrounds)
        self.start, self.stop, self.rank, self.world_size = start, stop, rank, world_size

    def __iter__(self) -> Iterator[Any]:
        """Make this worker's share of the pictures, in the order of their numbers."""
        # A stream goes on past a background that can't be decoded, in every process alike.
        self.synthesizer.backgrounds.on_error = _warn
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        first = self.start + self.rank + self.world_size * worker
        for number in range(first, self.stop, self.world_size * workers):
            yield self.transform(self.synthesizer.make(number, self.sentences.for_picture(number)))

    def __len__(self) -> int:
        """Return how many pictures this process gives, over all its workers."""
        return len(range(self.start + self.rank, self.stop, self.world_size))
