"""The verb train reranker: fit the decision, snap or keep, to one's own readings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caprag.cli.options import Complaints, EmbedderName, IndexFolder, Quiet, finish, hidden, open_embedder, refuse, say
from caprag.errors import CapragError


def train_reranker(
    pairs: Annotated[
        list[Path],
        typer.Argument(help="Readings with truth, a file an episode in its order: reading, tab, truth; or .jsonl."),
    ],
    index: IndexFolder,
    out: Annotated[Path, typer.Option(help="JSON file to write; caprag read and snap take it as --reranker.")],
    base: Annotated[
        Path | None, typer.Option(help="File of the reranker to start from, if not the shipped one.")
    ] = None,
    risk: Annotated[float, typer.Option(help="Share of lines the corpus lacks that may be harmed.")] = 0.002,
    cross_encoder: Annotated[
        str | None, typer.Option(help="Hub id or folder of a BGE reranker whose word is to count too; slow.")
    ] = None,
    embedder: EmbedderName = None,
    quiet: Quiet = False,
) -> None:
    """Fit the decision, snap or keep, to readings whose truth is known; 200 lines will do.

    Each reading is looked up with its sentence in the corpus, and with the episode's sentences taken out. Fewer than
    4,000 readings move the shipped decision as a whole; more fit all of its weights. What the page of caprag review
    saves can be given as it is, best with many lines that were right too. Readings are taken as texts.
    """
    from caprag.reranking import Reranker
    from caprag.reranking.cross_encoder import load_cross_encoder
    from caprag.retrieval import Index
    from caprag.training.reranker import read_pairs
    from caprag.training.reranker import train_reranker as train

    complaints = Complaints()
    episodes = [read_pairs(path, on_error=complaints) for path in pairs]
    opened = Index.load(index, embedder=open_embedder(embedder))
    try:
        judge = None if cross_encoder is None else load_cross_encoder(cross_encoder)
        reranker = train(
            episodes, opened, base=Reranker.load(base), risk=risk, cross_encoder=judge, progress=not hidden(quiet)
        )
    except ValueError as error:
        refuse(str(error))
    try:
        reranker.save(out)
    except OSError as error:
        raise CapragError(f"{out}: can't be written ({error.strerror}); choose another file") from error
    say(f"{out}: {sum(map(len, episodes))} readings")
    decisions = {"by itself": reranker.line} | ({} if reranker.order is None else {"in order": reranker.order.decision})
    for name, decision in decisions.items():
        harmed = sum(chance >= decision.threshold for chance in decision.harmful)
        say(
            f"a line {name} snaps from a probability of {decision.threshold:.3f} on, which would have harmed {harmed} "
            f"of {decision.lines} lines that the corpus lacks"
        )
    if (least := 1 / (reranker.line.lines + 1)) > risk:
        say(f"so few lines can vouch for a risk of {least:.3f}, not for {risk}")
    finish(complaints.count, "lines")
