"""The command `caprag`: one verb for each thing a user does, in the order of the data.

Results go to stdout or --out, one JSON object a line; progress and complaints go to stderr. Exit status: 0 all well,
1 some items failed (each was named), 2 wrong use.
"""

from __future__ import annotations

import io
import signal
import sys

import typer

from caprag.cli import (
    assembly,
    captioner_training,
    conversations,
    corpus,
    cross_encoder,
    evaluation,
    evaluation_captions,
    evaluation_text,
    indexing,
    labelling,
    poems,
    reading,
    recognizer_training,
    reranker_training,
    review,
    synthesis,
    training,
)
from caprag.cli.options import complain
from caprag.errors import CapragError

app = typer.Typer(
    help="Read the captions burnt into TV pictures and snap each to the sentence that was meant.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
index_app = typer.Typer(
    help="Build, change and describe indexes of known sentences.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(index_app, name="index")
poems_app = typer.Typer(
    help="Build indexes of verses, and training rows of translated verses.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(poems_app, name="poems")
train_app = typer.Typer(help="Train models of your own.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(train_app, name="train")
eval_app = typer.Typer(help="Measure, with intervals and peers.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(eval_app, name="eval")

# In the order of --help: where it belongs, its name, what it does, an example.
for group, name, verb, example in (
    (app, "corpus", corpus.corpus, "caprag corpus scripts/ --out corpus.txt"),
    (app, "synth", synthesis.synth,
     "caprag synth --text corpus.txt --backgrounds photos/ --out pictures --count 100000 --workers 2 --damage light"),
    (app, "conversations", conversations.conversations, "caprag conversations pictures/ --to llava --out train.json"),
    (app, "label", labelling.label,
     'caprag label frames/ --model Qwen/Qwen2.5-VL-3B-Instruct --prompt 讀出字幕 --prompt 字幕寫了什麼 --out l.jsonl'),
    (app, "read", reading.read, "caprag read frames/ --index indexes/demo --out captions.jsonl"),
    (app, "snap", reading.snap,
     "caprag snap readings.txt --index indexes/demo, or ... | caprag snap - --index indexes/demo"),
    (app, "explain", review.explain, "caprag explain 太稠了鍋鐘立得住 --index indexes/demo"),
    (app, "review", review.review, "caprag review captions.jsonl --out review.html --embed"),
    (app, "search", indexing.search, "caprag search 妳在閒玩笑嗎 --index indexes/demo -k 3"),
    (index_app, "build", indexing.index_build, "caprag index build scripts/*.srt --out indexes/drama --factory Flat"),
    (index_app, "add", indexing.index_add, "caprag index add episode12.srt --index indexes/drama"),
    (index_app, "upsert", indexing.index_upsert, "caprag index upsert episode12.srt --index indexes/drama"),
    (index_app, "remove", indexing.index_remove, "caprag index remove 17 18 --index indexes/drama"),
    (index_app, "compact", indexing.index_compact, "caprag index compact indexes/drama"),
    (index_app, "tune", indexing.index_tune,
     'caprag index tune indexes/drama --recall 0.99, or ... --factories "IVF1024,SQ8;HNSW32" --memory 8GB'),
    (index_app, "check", indexing.index_check, "caprag index check indexes/drama"),
    (index_app, "info", indexing.index_info, "caprag index info indexes/demo"),
    (app, "mine", training.mine,
     "caprag mine corpus.txt --noise --corpus corpus.txt --out train.jsonl --range 2-20 --negatives 9"),
    (train_app, "embedder", training.train_embedder,
     "caprag train embedder train.jsonl --base BAAI/bge-small-zh-v1.5 --out embedder"),
    (train_app, "cross-encoder", cross_encoder.train_cross_encoder,
     "caprag train cross-encoder train.jsonl --out models/reranker"),
    (train_app, "recognizer", recognizer_training.train_recognizer,
     "caprag train recognizer train.json --model llava-hf/llava-1.5-7b-hf --out models/captions --held-out held.json"),
    (train_app, "captioner", captioner_training.train_captioner,
     "caprag train captioner train.json --out models/captioner --held-out held.json"),
    (train_app, "reranker", reranker_training.train_reranker,
     "caprag train reranker corrections.jsonl --index indexes/drama --out reranker.json"),
    (app, "assemble", assembly.assemble,
     "caprag assemble --tower OFA-Sys/chinese-clip-vit-large-patch14 --lm Qwen/Qwen2-1.5B-Instruct --out models/llava"),
    (app, "merge", assembly.merge, "caprag merge adapters/captions --out models/captions --quantize int8"),
    (app, "poem", poems.poem, "caprag poem 床前灑滿了月光 --index indexes/poems -k 3"),
    (poems_app, "build", poems.poems_build,
     "caprag poems build poems.jsonl ccpm-train.jsonl --out indexes/poems --authors 李白,杜甫"),
    (poems_app, "pairs", poems.poems_pairs, "caprag poems pairs ccpm-train.jsonl --out train.jsonl"),
    (eval_app, "retrieval", evaluation.retrieval,
     "caprag eval retrieval --corpus corpus.txt --noise 0.05,0.2 --systems caprag,edit,bm25 --out results.json"),
    (eval_app, "captions", evaluation_captions.captions,
     "caprag eval captions episode.tsv --index indexes/drama --plot decisions.png"),
    (eval_app, "text", evaluation_text.text,
     "caprag eval text captions.jsonl references.jsonl --metrics bleu,rouge-l,cider,cer --json scores.json"),
):  # fmt: skip
    group.command(name, epilog=f"Example: {example}")(verb)


def main() -> None:
    """Run the command and exit with its status."""
    if sys.stdout is None or sys.stderr is None:
        sys.exit(2)
    # Temporary folders go with the program, however it is asked to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    for stream in (sys.stdout, sys.stderr):
        # Whatever the locale says: captions and file names are not ASCII.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        app()
    except CapragError as error:
        complain(str(error))
        sys.exit(2)
    except OSError as error:
        complain(f"{error.filename or 'the output'}: {error.strerror or error}; what was written before is kept")
        sys.exit(1)
