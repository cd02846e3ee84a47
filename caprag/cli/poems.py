"""The verbs poem and poems: verses for words and pictures, and the index they are found in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from caprag.cli.options import (
    Complaints,
    EmbedderName,
    Encoding,
    IndexFolder,
    Quiet,
    complain,
    finish,
    hidden,
    open_embedder,
    print_json,
    refuse,
    say,
)
from caprag.cli.reading import refuse_elsewhere
from caprag.errors import CorpusError, FrameError

Files = Annotated[list[Path], typer.Argument(help="JSON lines of poems (title, author, lines, translation) or of "
                                                  "translated verses (translation, choices, answer).")]  # fmt: skip
Variant = Annotated[str | None, typer.Option("--convert", help="Rewrite Simplified rows: tw, twp or hk.")]


def poem(
    queries: Annotated[list[str], typer.Argument(help="Pictures, or plain words.")],
    index: IndexFolder,
    recognizer: Annotated[
        str | None, typer.Option(help="Folder, hub id or address of the vision-language model that describes pictures.")
    ] = None,
    served: Annotated[str | None, typer.Option(help="Which of a server's models, where it has several.")] = None,
    words: Annotated[str | None, typer.Option(help="Words to go with every picture.")] = None,
    cross_encoder: Annotated[
        str | None, typer.Option(help="Folder or hub id of a cross-encoder that puts the verses in order.")
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Verses to show.")] = 5,
    candidates: Annotated[int, typer.Option(min=1, help="Verses that each search proposes.")] = 50,
    embedder: EmbedderName = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 8,
    device: Annotated[str | None, typer.Option(help="Where the models run, e.g. cuda or cpu.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Precision of the vision-language model.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What it is asked, if not for a description and a verse.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of its reply.")] = 192,
) -> None:
    """Find the verses that fit pictures or plain words.

    One JSON object a query, in the order of the input: image or text, description (what the model said of the
    picture), line (the verse it thought of itself), verses (text, title, author, line, score, origins, known,
    sentence_id), best first.
    """
    from caprag.poems import PoemFinder
    from caprag.recognition import open_frame
    from caprag.retrieval import Index

    kinds = [_is_picture(query) for query in queries]
    options = {"device": device, "dtype": dtype, "prompt": prompt}
    reader = None
    if any(kinds):
        if recognizer is None:
            refuse(f"{queries[kinds.index(True)]}: is a picture; name a vision-language model with --recognizer")
        given = {name: value for name, value in options.items() if value is not None}
        # The cross-encoder runs here in any case.
        local = [name for name in given if name != "device" or cross_encoder is None]
        refuse_elsewhere(recognizer, local, served)
        reader = _open_recognizer(recognizer, batch_size, max_new_tokens, given, served)
    scorer = None
    if cross_encoder is not None:
        from caprag.reranking.cross_encoder import load_cross_encoder

        scorer = load_cross_encoder(cross_encoder, device=device)
    opened = Index.load(index, embedder=open_embedder(embedder))
    finder = PoemFinder(opened, reader, scorer, candidates=candidates)
    complaints = Complaints()
    for start in range(0, len(queries), batch_size):
        rows: list[dict[str, object]] = []
        texts: list[str | None] = []
        images = []
        for query, is_picture in zip(queries[start : start + batch_size], kinds[start:], strict=False):
            try:
                images.append(open_frame(query) if is_picture else None)
            except FrameError as error:
                complaints(error)
                continue
            rows.append({"image" if is_picture else "text": query})
            texts.append(words if is_picture else query)
        said = iter(finder.describe([image for image in images if image is not None]))
        described = [None if image is None else next(said) for image in images]
        for row, description, verses in zip(rows, described, finder.find_described(texts, described, k), strict=True):
            if description is not None:
                row |= {"description": description.text, "line": description.line}
            row["verses"] = [
                {
                    "text": verse.text, "title": verse.title, "author": verse.author, "line": verse.line,
                    "score": verse.score, "origins": list(verse.origins), "known": verse.known, "sentence_id": verse.id,
                }
                for verse in verses
            ]  # fmt: skip
            print_json(row)
    finish(complaints.count, "pictures")


def _is_picture(query: str) -> bool:
    """Take what is a file, or is named like a picture, for one."""
    from caprag.recognition.frames import SUFFIXES

    path = Path(query)
    try:
        return path.is_file() or path.suffix.lower() in SUFFIXES
    except (OSError, ValueError):
        # Words that no file system takes for a name.
        return False


def _open_recognizer(
    name: str, batch_size: int, max_new_tokens: int, given: dict[str, Any], served: str | None
) -> Recognizer:  # type: ignore[name-defined] # noqa: F821
    from caprag.poems.finder import PROMPT
    from caprag.recognition import load_recognizer

    if name == "rapidocr":
        if given:
            refuse(f"{', '.join(given)}: is for vision-language models; name one with --recognizer")
        return load_recognizer(name, batch_size=batch_size)
    options: dict[str, Any] = {"prompt": PROMPT, "max_new_tokens": max_new_tokens, **given}
    try:
        if name.startswith(("http://", "https://")):
            from caprag.recognition.server import ServerRecognizer

            options.pop("device", None)
            return ServerRecognizer(name, served, parallel=batch_size, **options)
        return load_recognizer(name, batch_size=batch_size, **options)
    except (ValueError, RuntimeError) as error:
        refuse(f"{name}: {error}")


def poems_build(
    files: Files,
    out: Annotated[Path, typer.Option("--out", help="Index folder to make.")],
    by: Annotated[
        str, typer.Option(help="What answers: verse (its own text), or translation (its translations too).")
    ] = "translation",
    unit: Annotated[str, typer.Option(help="What of a poem is one verse: clause, couplet or line.")] = "couplet",
    authors: Annotated[
        list[str] | None, typer.Option("--authors", help="Only this author's poems; may be given several times, or "
                                                         "names with commas between them.")
    ] = None,
    variant: Variant = None,
    factory: Annotated[str, typer.Option(help="FAISS factory string, e.g. Flat, HNSW32 or IVF1024,Flat.")] = "Flat",
    embedder: Annotated[str, typer.Option(help="shipped, or the folder or hub id of an embedder.")] = "shipped",
    encoding: Encoding = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an index that is there.")] = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Build an index of the verses of poems and of translated verses."""
    from caprag.poems import make_verses
    from caprag.retrieval import Index

    if (out / "index.json").exists() and not force:
        refuse(f"{out} holds an index already; choose another folder, or replace it (--force)")
    names = None if authors is None else [name for given in authors for name in given.replace("，", ",").split(",")]
    complaints = Complaints()
    loaded = open_embedder(embedder)
    try:
        sentences, report = make_verses(
            _read(files, variant, encoding, complaints), unit=unit, by=by,  # type: ignore[arg-type]
            authors=None if names is None else [name.strip() for name in names],
        )  # fmt: skip
        say(str(report))
        index = Index.build(sentences, loaded, factory=factory, progress=not hidden(quiet))
    except ValueError as error:
        refuse(str(error))
    index.save(out)
    say(f"{out}: {len(index)} verses")
    finish(complaints.count, "rows")


def poems_pairs(
    files: Files,
    out: Annotated[Path, typer.Option("--out", help="File of training rows to write (.jsonl).")],
    variant: Variant = None,
    encoding: Encoding = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write translated verses as training rows: query (plain words), pos and neg.

    The rows train embedders and cross-encoders as they are, and with other negatives once caprag mine has found some.
    """
    from caprag.poems import VersePair, write_training

    if out.exists() and not force:
        refuse(f"{out} is there already; choose another file, or replace it (--force)")
    complaints = Complaints()
    try:
        entries = _read(files, variant, encoding, complaints)
        count = write_training((entry for entry in entries if isinstance(entry, VersePair)), out)
    except ValueError as error:
        refuse(str(error))
    say(f"{out}: {count} rows")
    if not count:
        complain("there was no translated verse in the files")
    finish(complaints.count, "rows")


def _read(
    files: list[Path], variant: str | None, encoding: str | None, complaints: Complaints
) -> Iterator[Poem | VersePair]:  # type: ignore[name-defined] # noqa: F821
    from caprag.poems import read_poems

    for path in files:
        if not path.is_file():
            raise CorpusError(f"{path}: no such file; name files of poems or of translated verses (.jsonl)")
    return read_poems(files, variant=variant, encoding=encoding, on_error=complaints)  # type: ignore[arg-type]
