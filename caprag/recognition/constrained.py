"""Keeps a generating model to known sentences, or draws it towards them, token by token.

The sentences are written as tokens and kept as a trie. While the model searches, a soft constraint gives each token
that keeps a text within the trie a bonus, and takes all of it back where the text leaves the trie: what is no known
sentence has in the end the score that the model alone gives it. A hard constraint lets nothing but whole sentences
through. What this module does not know: pictures, prompts, and which sentences a picture is likely to show; and a
sentence counts as written in one way, the one that the tokenizer itself would choose.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm
from transformers import LogitsProcessor

Mode = Literal["soft", "hard"]

Node = tuple[int, int, int]
"""A place in a trie: the rows from the first to before the second number share as many tokens as the third says."""

_AT_ONCE = 4096
"""Sentences that the tokenizer gets at a time."""


class Branches(NamedTuple):
    """What may follow at a node.

    Attributes
    ----------
    ends
        Whether a row ends here.
    tokens
        Shape (branches,), int64: ids of the tokens that go on, ascending.
    nodes
        Where each of them leads.
    """

    ends: bool
    tokens: npt.NDArray[np.int64]
    nodes: list[Node]


class TokenTrie:
    """Token sequences in sorted order, in which those that begin alike stand together.

    Parameters
    ----------
    rows
        Sequences of token ids, each id in [0, 2**31); those that are equal count once.

    Notes
    -----
    A node is a range of rows, found by looking at one column of them. So there are no node objects: four bytes a
    token and eight a row.

    Examples
    --------
    >>> trie = TokenTrie([(5, 7), (5, 7, 9), (6,)])
    >>> trie.branches(trie.root).tokens.tolist(), len(trie)
    ([5, 6], 3)
    """

    def __init__(self, rows: Iterable[Sequence[int]]) -> None:
        # Compared as bytes, big-endian numbers have their own order, and a row comes before those it begins.
        packed = sorted({np.asarray(row, dtype=">u4").tobytes() for row in rows})
        self._offsets = np.zeros(len(packed) + 1, dtype=np.int64)
        np.cumsum([len(row) // 4 for row in packed], out=self._offsets[1:])
        self._tokens = np.frombuffer(b"".join(packed), dtype=">u4").astype(np.int32)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def root(self) -> Node:
        """The node of the empty sequence."""
        return 0, len(self), 0

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the trie takes."""
        return self._tokens.nbytes + self._offsets.nbytes

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(np.diff(self._offsets).max(initial=0))

    @property
    def highest(self) -> int:
        """The highest token id; -1 where there are no tokens."""
        return int(self._tokens.max(initial=-1))

    def branches(self, node: Node) -> Branches:
        """List what may follow at `node`."""
        first, stop, depth = node
        ends = first < stop and int(self._offsets[first + 1] - self._offsets[first]) == depth
        first += ends
        column = self._tokens[self._offsets[first:stop] + depth]
        edges = [0, *(np.flatnonzero(np.diff(column)) + 1).tolist(), len(column)] if len(column) else [0]
        nodes = [(first + left, first + right, depth + 1) for left, right in itertools.pairwise(edges)]
        return Branches(ends, column[edges[:-1]].astype(np.int64), nodes)

    def __contains__(self, row: object) -> bool:
        if not isinstance(row, Sequence):
            return False
        node: Node | None = self.root
        for token in row:
            if node is None or (node := step(self.branches(node), token)) is None:
                return False
        return node is not None and self.branches(node).ends


def step(branches: Branches, token: int) -> Node | None:
    """Follow one token from a node's `branches`; ``None`` where it leads out of the trie."""
    place = int(np.searchsorted(branches.tokens, token))
    return branches.nodes[place] if place < len(branches.tokens) and branches.tokens[place] == token else None


class SentenceConstraint:
    """Known sentences, as something that the search of a generating model keeps to.

    Parameters
    ----------
    sentences
        The texts; equal ones count once. Of an index: ``(index[id].text for id in index)``.
    tokenizer
        The transformers tokenizer of the model.
    mode
        ``"soft"``: whole sentences get a bonus, everything else keeps its score. ``"hard"``: whole sentences only.
    bonus
        Nats a token, >= 0, that a soft constraint adds. A sentence of `n` tokens is preferred to a text that the
        model finds ``exp(bonus * n)`` times more likely. Not used by a hard one.
    context
        What the prompt has after its last special token, ``"ASSISTANT:"`` for example; empty for chat formats
        that end in a token or a line break. Sentences are written as they follow it, and where it does not end in
        white space each may begin with a space as well.
    start
        Token ids that come before each sentence: the start token, where an encoder-decoder writes one itself.
    max_tokens
        Longer sentences are left out, counting `start`, >= 1. Keep it below the number of tokens that the model
        may write, so that there is room for the end: else a sentence may be cut within, a character too.
    progress
        Whether to show a progress bar on stderr.

    Attributes
    ----------
    trie
        The sentences as tokens.
    left_out
        Number of sentences that are too long, hold a special token's name, or that the tokenizer can't write.

    Raises
    ------
    ValueError
        For an unknown `mode`, a `bonus` that is negative or not finite, a `max_tokens` below 1, or where no
        sentence is left.

    Notes
    -----
    In a beam search the score of a finished text is ``ln p(text, end) + adjustment(its tokens)``, exactly, with
    the length penalty 0. The paths are compared on their way as well, with the bonus they have got so far, and
    ``generate`` stops where no open path is ahead of the finished ones, which with a bonus is a little early:
    both are reasons for a wider beam. A greedy search takes the same steps without a look at the total.

    With a tokenizer that changes texts (case, width), what comes out is the changed sentence. A beam wider than
    there are sentences can't be filled by a hard constraint: ``generate`` then hands out surplus rows, which
    `adjustment` gives ``-inf``, and which a `VLMRecognizer` drops.

    A hundred thousand captions of a dozen characters take seconds to build and about five megabytes.

    Examples
    --------
    >>> reader = VLMRecognizer("models/captions")  # doctest: +SKIP
    >>> constraint = SentenceConstraint(
    ...     ["我不知道"], reader.tokenizer, "hard", context=reader.context
    ... )  # doctest: +SKIP
    >>> reader.constraint = constraint  # doctest: +SKIP
    >>> processor = constraint.processor(prompt_length=300, eos_token_ids=[2])  # doctest: +SKIP
    >>> model.generate(**inputs, num_beams=5, logits_processor=[processor])  # doctest: +SKIP
    """

    def __init__(
        self,
        sentences: Iterable[str],
        tokenizer: Any,
        mode: Mode = "soft",
        bonus: float = 1.0,
        *,
        context: str = "",
        start: Sequence[int] = (),
        max_tokens: int = 63,
        progress: bool = False,
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, not {mode!r}")
        if not 0 <= bonus < math.inf:
            raise ValueError(f"bonus must be a finite number of nats, at least 0, not {bonus}")
        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, not {max_tokens}")
        self.mode = mode
        self.bonus = bonus
        self.left_out = 0
        shown = tqdm(sentences, desc="tokens", unit=" sentences", disable=not progress)
        self.trie = TokenTrie(self._rows(shown, tokenizer, context, tuple(start), max_tokens))
        if not len(self.trie):
            raise ValueError(
                f"no sentence to keep to: {self.left_out} left out, which have more than {max_tokens} tokens or "
                "characters that the tokenizer does not know; give others, or raise max_tokens"
            )

    def processor(self, *, prompt_length: int, eos_token_ids: Sequence[int]) -> SentenceProcessor:
        """Make what ``generate`` takes as a logits processor.

        Parameters
        ----------
        prompt_length
            Tokens before the text in ``input_ids``, padding included; for an encoder-decoder those that its
            decoder starts from. >= 0.
        eos_token_ids
            Ids of the tokens that end a text, at least one.

        Returns
        -------
        SentenceProcessor
            For any number of rows and beams, in any order.

        Raises
        ------
        ValueError
            For a negative `prompt_length`, or without end tokens.
        """
        return SentenceProcessor(self, prompt_length, eos_token_ids)

    def adjustment(self, tokens: Sequence[int]) -> float:
        """Say what a finished text's score differs by from its log-probability.

        Parameters
        ----------
        tokens
            Ids of the text, without prompt and end.

        Returns
        -------
        float
            Nats. Soft: ``bonus * len(tokens)`` for a whole sentence, else 0. Hard: 0 for one, else ``-inf``.
        """
        known = tokens in self.trie
        if self.mode == "hard":
            return 0.0 if known else -math.inf
        return self.bonus * len(tokens) if known else 0.0

    def _rows(
        self, sentences: Iterable[str], tokenizer: Any, context: str, start: tuple[int, ...], max_tokens: int
    ) -> Iterable[tuple[int, ...]]:
        """Write each sentence in each of its ways, and count those that have none."""
        names = {token for token, kind in tokenizer.added_tokens_decoder.items() if kind.special}
        barred = {*tokenizer.all_special_ids, *names}

        def encode(texts: list[str]) -> list[list[int]]:
            found: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
            return found

        before = encode([context])[0] if context else []
        leads = ("",) if not context or context[-1].isspace() else ("", " ")
        every = iter(sentences)
        while chunk := list(itertools.islice(every, _AT_ONCE)):
            ways: list[list[list[int]]] = [[] for _ in chunk]
            for lead in leads:
                texts = [lead + sentence for sentence in chunk]
                alone = encode(texts)
                both = encode([context + text for text in texts]) if before else alone
                for way, whole, single in zip(ways, both, alone, strict=True):
                    # Where the text melts into the context, it is written as it stands alone.
                    way.append(whole[len(before) :] if whole[: len(before)] == before else single)
            for sentence, way in zip(chunk, ways, strict=True):
                rows = [(*start, *row) for row in way if barred.isdisjoint(row) and (row or not sentence)]
                rows = [] if "\ufffd" in sentence else [row for row in rows if len(row) <= max_tokens]
                self.left_out += not rows
                yield from rows


class SentenceProcessor(LogitsProcessor):  # type: ignore[misc, unused-ignore]
    """A `SentenceConstraint` at work in one call of ``generate``; see there.

    It finds each row's place from the row's own tokens, so that it does not matter how a search orders its beams.
    """

    def __init__(self, constraint: SentenceConstraint, prompt_length: int, eos_token_ids: Sequence[int]) -> None:
        if prompt_length < 0:
            raise ValueError(f"prompt_length must be at least 0, not {prompt_length}")
        if not eos_token_ids:
            raise ValueError("eos_token_ids must name at least one token: without an end no sentence is whole")
        self._trie = constraint.trie
        self._hard = constraint.mode == "hard"
        self._bonus = constraint.bonus
        self._prompt_length = prompt_length
        self._ends = list(eos_token_ids)
        self._nodes: dict[tuple[int, ...], Node | None] = {(): self._trie.root}
        self._known: dict[Node, Branches] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Change the scores of the next token.

        Parameters
        ----------
        input_ids
            Shape (rows, length), integers: prompt and what was written so far.
        scores
            Shape (rows, tokens of the model), floats: logits or log-probabilities.

        Returns
        -------
        torch.Tensor
            The changed scores, of the same shape; `scores` stays as it is.

        Raises
        ------
        ValueError
            Where a sentence has a token that the model does not.
        """
        if max(self._trie.highest, *self._ends) >= scores.shape[1]:
            raise ValueError(
                f"the sentences have token ids up to {self._trie.highest}, the ends {self._ends}, but the model has "
                f"{scores.shape[1]} tokens; make the constraint with the model's own tokenizer"
            )
        changed = torch.full_like(scores, -math.inf) if self._hard else scores.clone()
        for place, row in enumerate(input_ids[:, self._prompt_length :].tolist()):
            node = self._find(tuple(row))
            if node is None:
                # A lost row that a hard search drags along must have something to say, or sampling fails.
                changed[place, self._ends] = scores[place, self._ends]
                continue
            branches = self._branches(node)
            further = torch.from_numpy(branches.tokens).to(scores.device)
            if not self._hard:
                changed[place] -= self._bonus * node[2]
                changed[place, further] = scores[place, further] + self._bonus
            else:
                changed[place, further] = scores[place, further]
            if branches.ends:
                changed[place, self._ends] = scores[place, self._ends]
        return changed

    def _find(self, row: tuple[int, ...]) -> Node | None:
        """Walk to the row's node; ``None`` where it has left the trie."""
        known = len(row)
        while row[:known] not in self._nodes:
            known -= 1
        node = self._nodes[row[:known]]
        for place in range(known, len(row)):
            node = None if node is None else step(self._branches(node), row[place])
            self._nodes[row[: place + 1]] = node
        return node

    def _branches(self, node: Node) -> Branches:
        """List what may follow; an end token is never a part of a sentence."""
        if node not in self._known:
            ends, tokens, nodes = self._trie.branches(node)
            kept = np.flatnonzero(~np.isin(tokens, self._ends))
            self._known[node] = Branches(ends, tokens[kept], [nodes[place] for place in kept])
        return self._known[node]
