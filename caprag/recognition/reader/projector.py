"""What joins the shipped reader's eyes to its language: steps of a picture to tokens, and to scores of characters."""

from __future__ import annotations

import math

import torch
from torch import nn

_EMPTY = math.log(0.9 / 0.1)
"""Logit from which on a step shows no character."""


class Projector(nn.Module):
    """From the neck's steps to tokens of the prefix, and to scores of characters.

    Steps lie in the space of the characters' embeddings by `to_text`, each the shorter the more it looks like no
    character at all; what that loses is added by `detail`, which begins at zero.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.to_text = nn.Linear(width, hidden, bias=False)
        self.blank = nn.Linear(width, 1)
        self.detail = nn.Linear(width, hidden)
        self.scale = nn.Parameter(torch.ones(()))
        for linear in (self.blank, self.detail):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        """Return a token, (..., hidden), for each step, (..., width)."""
        told: torch.Tensor = self.to_text(steps) * torch.sigmoid(-self.blank(steps)) + self.detail(steps)
        return told

    def shown(self, steps: torch.Tensor) -> torch.Tensor:
        """Tell which of the steps, (n, steps, width), show a character, (n, steps); at least one of each line."""
        doubt = self.blank(steps).squeeze(-1)
        wanted: torch.Tensor = (doubt < _EMPTY) | (doubt <= doubt.amin(1, keepdim=True))
        return wanted


__all__ = ["Projector"]
