"""What a greedy search says of its probabilities is what teacher forcing says."""

from __future__ import annotations

import pytest
import torch

from caprag.recognition.greedy import Watcher

ENDS = (0, 3)
PROMPT = 2


def searched(tables: torch.Tensor, choices: list[list[int]]) -> list[float | None]:
    """Go through the steps of a search: `tables` (steps, rows, tokens), what is chosen (rows, steps)."""
    watcher = Watcher(PROMPT, ENDS)
    ids = torch.full((len(choices), PROMPT), 1)
    for step, table in enumerate(tables):
        assert watcher(ids, table) is table
        ids = torch.cat([ids, torch.tensor([[row[step]] for row in choices])], 1)
    return watcher.logprobs(ids)


def test_sums_are_those_of_the_chosen_tokens_and_of_all_ends() -> None:
    tables = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(1))
    # Ends at its third step, at its first, and not at all; what stands after an end does not count.
    choices = [[4, 5, 3, 0], [0, 0, 0, 0], [1, 2, 4, 5]]
    shares = tables.softmax(-1)
    both = shares[:, :, list(ENDS)].sum(-1)
    expected = [float((shares[0, 0, 4] * shares[1, 0, 5] * both[2, 0]).log()), float(both[0, 1].log())]
    found = searched(tables, choices)
    assert found[:2] == pytest.approx(expected, abs=1e-5)
    assert found[2] is None


def test_later_changes_of_the_scores_do_not_matter() -> None:
    tables = torch.randn(2, 1, 6, generator=torch.Generator().manual_seed(2))
    watcher = Watcher(PROMPT, ENDS)
    ids = torch.full((1, PROMPT), 1)
    expected = float(tables[0, 0].log_softmax(-1)[4] + tables[1, 0].softmax(-1)[list(ENDS)].sum().log())
    for table, token in zip(tables, (4, 3), strict=True):
        watcher(ids, table).fill_(-torch.inf)
        ids = torch.cat([ids, torch.tensor([[token]])], 1)
    assert watcher.logprobs(ids) == pytest.approx([expected], abs=1e-5)
