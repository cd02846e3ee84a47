"""The verbs assemble and merge: a LLaVA out of parts, and adapters put into the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from caprag.cli.options import refuse, say

# Typer reads the choices off these; caprag.training.assembly and caprag.training.merging have the same.
FitName = Literal["own", "whole"]
DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
BitsName = Literal["int8", "int4"]


def assemble(
    tower: Annotated[
        str, typer.Option(help="Hub id or folder of the vision tower: CLIP, Chinese-CLIP, SigLIP, DINOv2.")
    ],
    language_model: Annotated[str, typer.Option("--lm", help="Hub id or folder of the language model.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    feature_layer: Annotated[
        int, typer.Option(max=-1, help="Layer of the tower whose output is taken, from the end.")
    ] = -2,
    keep_class_token: Annotated[
        bool, typer.Option("--keep-class-token", help="Keep the tower's class token, which LLaVA leaves out.")
    ] = False,
    fit: Annotated[
        FitName,
        typer.Option(help="Pictures as the tower's own processor cuts them, or the whole picture, squeezed."),
    ] = "own",
    chat_template: Annotated[
        Path | None, typer.Option(help="File of a Jinja template for text; the language model's own if not given.")
    ] = None,
    pad_to_multiple_of: Annotated[
        int | None, typer.Option(min=1, help="Make the vocabulary's rows a multiple of this.")
    ] = None,
    dtype: Annotated[DtypeName, typer.Option(help="Of the weights; auto keeps all of them exact.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of the projector.")] = 0,
) -> None:
    """Put a vision tower and a language model together to a LLaVA.

    Both keep their weights; the projector between them is new and has to be trained, first alone and then with the
    rest. Plain transformers loads the folder.
    """
    from caprag.training.assembly import assemble as put_together

    template = None
    if chat_template is not None:
        try:
            template = chat_template.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            refuse(f"{chat_template}: can't be read ({error}); name a file of UTF-8 text")
    made = put_together(
        tower, language_model, out, feature_layer=feature_layer, keep_class_token=keep_class_token, fit=fit,
        chat_template=template, pad_to_multiple_of=pad_to_multiple_of, dtype=dtype, seed=seed,
    )  # fmt: skip
    say(
        f"{made.folder}: {made.tower} and {made.language_model}, {made.parameters / 1e6:.1f} M parameters, "
        f"{made.projector_parameters / 1e6:.1f} M of them new; {made.image_tokens} tokens a picture; "
        f"new tokens: {' '.join(made.new_tokens) or 'none'}; answers end with {' '.join(made.ends)}; "
        f"{made.size / 1e6:.1f} MB\n"
        "Train it in two stages, the projector alone and then all of it (or adapters, --method lora):\n"
        f"  caprag train recognizer DATA --model {out} --method projector --learning-rate 1e-3 --out {out}-1\n"
        f"  caprag train recognizer DATA --model {out}-1 --method full --learning-rate 2e-5 --out {out}-2"
    )


def merge(
    adapters: Annotated[
        list[str], typer.Argument(help="Hub ids or folders of adapters, in the order in which they were trained.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    base: Annotated[
        str | None, typer.Option(help="Hub id or folder of the model, if not the one the first adapter names.")
    ] = None,
    dtype: Annotated[DtypeName, typer.Option(help="Of the weights; auto is that of the base.")] = "auto",
    quantize: Annotated[
        BitsName | None, typer.Option(help="Store the language model's linear layers in 8 or 4 bits (bitsandbytes).")
    ] = None,
    device: Annotated[str, typer.Option(help="Where it is computed, in float32: cpu or cuda.")] = "cpu",
) -> None:
    """Merge adapters into their base model, with its tokenizer, processor and chat template.

    Merged and unmerged must say the same of a picture, to 1e-4 of the largest logit, or nothing is written.
    """
    from caprag.training.merging import merge as put_in

    made = put_in(list(adapters), out, base=base, dtype=dtype, quantize=quantize, device=device)
    say(
        f"{made.folder}: {', '.join(made.adapters)} in {made.base}; logits differ by {made.difference:.1e} from those "
        f"unmerged; {made.quantize or made.dtype}, {made.size / 1e6:.1f} MB"
    )
