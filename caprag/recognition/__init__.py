"""From pictures to hypotheses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from caprag.recognition.frames import list_frames, open_frame, to_rgb

if TYPE_CHECKING:
    from caprag.recognition.ctc import RapidOCRRecognizer as RapidOCRRecognizer
    from caprag.recognition.sampling import Sampling as Sampling
    from caprag.recognition.vlm import VLMRecognizer as VLMRecognizer
    from caprag.types import Recognizer

__all__ = [
    "RapidOCRRecognizer",
    "Sampling",
    "VLMRecognizer",
    "list_frames",
    "load_recognizer",
    "open_frame",
    "to_rgb",
]


def load_recognizer(model: str = "caprag", *, batch_size: int = 8, **options: Any) -> Recognizer:
    """Load a recognizer by name.

    Parameters
    ----------
    model
        ``"caprag"`` for the reader that is shipped; ``"rapidocr"`` for PP-OCRv6 by RapidOCR; the hub id or folder of a
        transformers image-text-to-text model, or of a PEFT adapter for one; the folder of a captioner that
        `caprag train captioner` wrote; or the address (``http://`` or ``https://``) of a server that speaks OpenAI's
        protocol.
    batch_size
        Pictures that will be read at a time, >= 1.
    options
        Passed on: those of `RapidOCRRecognizer`, `VLMRecognizer`,
        `caprag.recognition.captioner.CaptionerRecognizer` or `caprag.recognition.server.ServerRecognizer`.

    Returns
    -------
    Recognizer
        Ready to read.

    Raises
    ------
    ModelError
        Where the model can't be loaded.
    ValueError
        For an option that a captioner does not have.
    """
    # Each reader brings heavy packages: only the one asked for is imported.
    if model == "rapidocr":
        from caprag.recognition.ctc import RapidOCRRecognizer

        # It keeps what it read, so that scoring a batch costs no second pass.
        return RapidOCRRecognizer(**{"cache_size": batch_size, **options})
    if model.startswith(("http://", "https://")):
        from caprag.recognition.server import ServerRecognizer

        return ServerRecognizer(model, **{"parallel": batch_size, **options})
    from caprag.recognition.captioner_network import is_captioner

    if is_captioner(model):
        from caprag.recognition.captioner import CaptionerRecognizer

        if others := sorted(options.keys() - {"beam_width", "crop", "device", "max_new_tokens"}):
            raise ValueError(f"{', '.join(others)}: is for vision-language models, and this is a captioner")
        return CaptionerRecognizer(model, batch_size=batch_size, **options)
    from caprag.recognition.vlm import VLMRecognizer

    return VLMRecognizer(model, batch_size=batch_size, **options)


def __getattr__(name: str) -> object:
    if name == "RapidOCRRecognizer":
        from caprag.recognition.ctc import RapidOCRRecognizer

        return RapidOCRRecognizer
    if name == "Sampling":
        from caprag.recognition.sampling import Sampling

        return Sampling
    if name == "VLMRecognizer":
        from caprag.recognition.vlm import VLMRecognizer

        return VLMRecognizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
