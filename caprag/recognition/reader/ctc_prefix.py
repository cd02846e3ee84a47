"""What CTC says of a text as a whole, and of what comes next after its beginning, whatever the rest may be.

Summed over all paths, and so as exact as CTC's own probabilities: the prefix probabilities of Graves (2008), which
Watanabe et al. (2017) join with a decoder's. Knows step probabilities and token ids alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch.nn import functional

LEAST = 1e-37
"""Probability that a logarithm is taken of."""

_NEVER = -1e30


def next_logprobs(
    heard: torch.Tensor, text: torch.Tensor, *, blank: int, end: int, kept: slice | None = None
) -> torch.Tensor:
    """Return log probabilities of the next token after each beginning of texts.

    Parameters
    ----------
    heard
        Probabilities of tokens at each step, (n, steps, tokens), float32; where a line has ended the blank's is 1.
    text
        Token ids, (rows, length): for each line as many rows, side by side. What stands behind an end says nothing.
    blank, end
        Ids of no character and of a text's end, which takes the place of what CTC knows by running out of steps.
    kept
        Which of the length + 1 beginnings are wanted, the empty one first; ``None`` for all.

    Returns
    -------
    torch.Tensor
        (rows, beginnings, tokens), in nats; each sums up to 1.
    """
    rows, length = text.shape
    count, steps, _ = heard.shape
    line = torch.arange(count, device=text.device).repeat_interleave(rows // count)
    place = torch.arange(steps, device=text.device)
    said = heard[line[:, None, None], place[None, :, None], text[:, None, :]].clamp(min=LEAST).log()
    silent = heard[line, :, blank].clamp(min=LEAST).log()
    again = torch.zeros_like(text, dtype=torch.bool)
    again[:, 1:] = text[:, 1:] == text[:, :-1]
    # Of each beginning: paths that end in no character, and in its last one.
    open_, closed = (torch.full((rows, length + 1), _NEVER, device=text.device) for _ in range(2))
    open_[:, 0] = 0.0
    before, before_open = [], []
    for step in range(steps):
        both = torch.logaddexp(open_, closed)
        before.append(both)
        before_open.append(open_)
        come = torch.where(again, open_[:, :-1], both[:, :-1])
        grown = torch.logaddexp(closed[:, 1:], come) + said[:, step]
        open_ = both + silent[:, step, None]
        closed = torch.cat([torch.full_like(open_[:, :1], _NEVER), grown], 1)
    wanted = slice(None) if kept is None else kept
    ended = torch.logaddexp(open_, closed)[:, wanted]
    ways = torch.stack(before, 1)[:, :, wanted]
    most = ways.amax(1)
    shares = (ways - most[:, None]).exp().transpose(1, 2).reshape(count, -1, steps)
    sums = torch.bmm(shares, heard).view(rows, -1, heard.shape[2])
    found = sums.clamp(min=LEAST).log() + most[:, :, None]
    if length:
        # The last character once more wants a step without one between.
        twice = torch.logsumexp(torch.stack(before_open, 1)[:, :, 1:] + said, 1)
        last = torch.cat([torch.full_like(text[:, :1], blank), text], 1)[:, wanted]
        twice = torch.cat([torch.full_like(twice[:, :1], _NEVER), twice], 1)[:, wanted]
        found.scatter_(2, last[:, :, None], twice[:, :, None])
    found[:, :, blank] = _NEVER
    found[:, :, end] = ended
    return found.log_softmax(-1)


def text_loss(
    logprobs: torch.Tensor, steps: Sequence[int], ids: Sequence[Sequence[int]], *, blank: int
) -> torch.Tensor:
    """Return CTC's loss of texts, in nats a token.

    Parameters
    ----------
    logprobs
        Of tokens at each step, (n, steps, tokens), float32.
    steps
        How many of them each line has; the others are filling.
    ids
        Tokens of each line. One that is empty, or has more than there are steps for, is passed over.
    blank
        Id of no character.

    Returns
    -------
    torch.Tensor
        The mean over lines of each one's loss by its tokens, 0 where there are none.
    """
    # A character that follows itself wants a blank between.
    needed = [len(row) + sum(a == b for a, b in itertools.pairwise(row)) for row in ids]
    fitting = [place for place, row in enumerate(ids) if row and needed[place] <= steps[place]]
    if not fitting:
        return logprobs.sum() * 0.0
    targets = torch.tensor([token for place in fitting for token in ids[place]])
    lengths = torch.tensor([len(ids[place]) for place in fitting])
    widths = torch.tensor([steps[place] for place in fitting])
    return functional.ctc_loss(
        logprobs[fitting].transpose(0, 1), targets.to(logprobs.device), widths, lengths, blank=blank, zero_infinity=True
    )


__all__ = ["LEAST", "next_logprobs", "text_loss"]
