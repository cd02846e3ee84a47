"""What of the picture a text has next: a place in it, and the characters that CTC sees there.

A pointer as in Vinyals et al. (2015) and See et al. (2017), whose word is multiplied with the language model's and not
mixed with it: the scores of the characters at the place that is pointed to are added to the language model's own, so
that what either rules out is not written. Where nothing is left to be read it points behind the picture.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

_WIDTH = 64
_SLOPE = 1.5
# softplus of it is 1.
_WHOLE = math.log(math.e - 1.0)

Picture = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Keys, (n, m, 64), values, (n, m, hidden), and numbers of places, (n, m), 0 where there is none."""


class Pointer(nn.Module):
    """Points from a text's place to a token of the picture; at first to the one with the next number.

    Parameters
    ----------
    hidden
        Width of the language model.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, _WIDTH, bias=False)
        self.key = nn.Linear(hidden, _WIDTH, bias=False)
        self.end_key = nn.Parameter(torch.zeros(_WIDTH))
        self.end = nn.Parameter(torch.zeros(hidden))
        self.slope = nn.Parameter(torch.tensor(_SLOPE))
        self.gate = nn.Linear(hidden, 1)
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Let it point to the next number, and take the picture's word whole."""
        nn.init.zeros_(self.query.weight)
        nn.init.normal_(self.key.weight, std=self.key.in_features**-0.5)
        for zero in (self.end_key, self.end, self.gate.weight):
            nn.init.zeros_(zero)
        nn.init.constant_(self.slope, _SLOPE)
        nn.init.constant_(self.gate.bias, _WHOLE)

    def take(self, hidden: torch.Tensor, values: torch.Tensor, shown: torch.Tensor) -> Picture:
        """Return what can be pointed to.

        Parameters
        ----------
        hidden
            The language model's last states at the picture's tokens, (n, m, hidden).
        values
            What the characters' embeddings are multiplied with for the scores of each token, (n, m, hidden).
        shown
            Which of them there are, (n, m); the others stand on the left.
        """
        count = len(hidden)
        keys = torch.cat([self.key(hidden), self.end_key.expand(count, 1, -1)], 1)
        numbers = shown.cumsum(1)
        last = numbers[:, -1:] + 1
        return keys, torch.cat([values, self.end.expand(count, 1, -1)], 1), torch.cat([numbers * shown, last], 1)

    def forward(
        self, hidden: torch.Tensor, places: torch.Tensor, picture: Picture
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Say what the picture adds.

        Parameters
        ----------
        hidden
            The language model's last states at the text's tokens, (n, length, hidden).
        places
            Their numbers, (n, length): the start's is 0.
        picture
            As `take` returns it; of one row, or of a part of the rows where those that share a picture stand together.

        Returns
        -------
        added : torch.Tensor
            To be added to the states, (n, length, hidden).
        share : torch.Tensor
            How much of a character's bias belongs to it, (n, length, 1).
        """
        copies = len(hidden) // len(picture[0])
        if copies > 1:
            keys, values, numbers = (part.repeat_interleave(copies, 0) for part in picture)
        else:
            keys, values, numbers = picture
        scores = self.query(hidden) @ keys.transpose(1, 2) / math.sqrt(_WIDTH)
        away = (numbers[:, None] - places[:, :, None] - 1).abs()
        scores = scores.float() - functional.softplus(self.slope) * away
        weights = scores.masked_fill(numbers[:, None] == 0, -math.inf).softmax(-1).to(values.dtype)
        strength = functional.softplus(self.gate(hidden))
        return strength * (weights @ values), strength * (1.0 - weights[..., -1:])
