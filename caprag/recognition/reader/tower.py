"""The vision tower of the shipped reader: what PP-OCRv6's recogniser sees, before it decides on characters.

The network is the one in the installed rapidocr; it is cut where its convolutions end, and nothing of it is stored
here. Knows one line of text at a time. It runs on onnxruntime and can't be trained.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from caprag.errors import ModelError

HEIGHT = 48
"""Of a line, in pixels, as the tower takes it."""

STRIDE = 8
"""Pixels to a step of the features."""

CHANNELS = 384
"""Of a step."""

FILE = "PP-OCRv6_rec_small.onnx"
SHA256 = "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884"
"""Of the network: with another one the shipped weights would read nonsense."""

# Widths are multiples of this: few kinds of shapes, and an even number of steps.
_UNIT = 32
_WIDEST = 3200
_INPUT, _OUTPUT = "x", "p2o.pd_op.pool2d.1.0"

Pixels = npt.NDArray[np.float32]


def network_file() -> Path:
    """Return the file of the network in the installed rapidocr.

    Raises
    ------
    ModelError
        Where it is not there, or is another one.
    """
    import rapidocr

    path = Path(rapidocr.__file__).parent / "models" / FILE
    remedy = "install a rapidocr that carries it: pip install 'rapidocr>=3.10,<4'"
    if not path.exists():
        raise ModelError(f"{path}: the shipped reader's tower is not in rapidocr {version('rapidocr')}; {remedy}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise ModelError(f"{path}: is not the network that the shipped reader was trained with; {remedy}")
    return path


def line_pixels(line: Image.Image) -> Pixels:
    """Scale a line to the tower's height.

    Parameters
    ----------
    line
        A picture of one line of text, any size.

    Returns
    -------
    numpy.ndarray
        Shape (3, 48, width), float32 in [-1, 1], blue first; width a multiple of 32, from 32 to 3200 pixels. What is
        added on the right is grey.
    """
    width = round(line.width * HEIGHT / max(1, line.height))
    width = min(max(width, 1), _WIDEST)
    scaled = np.asarray(line.convert("RGB").resize((width, HEIGHT), Image.Resampling.BILINEAR), np.float32)
    pixels = np.zeros((3, HEIGHT, -(-width // _UNIT) * _UNIT), np.float32)
    pixels[:, :, :width] = scaled[:, :, ::-1].transpose(2, 0, 1) / 127.5 - 1.0
    return pixels


class Tower:
    """Turns lines into features.

    Parameters
    ----------
    n_threads
        Of onnxruntime; ``None`` lets it take one a core.
    """

    def __init__(self, n_threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if n_threads is not None:
            options.intra_op_num_threads = n_threads
        self._session = onnxruntime.InferenceSession(_cut(), options, providers=["CPUExecutionProvider"])

    def features(self, lines: Sequence[Pixels]) -> list[npt.NDArray[np.float32]]:
        """Describe lines, one by one: on a CPU a batch saves nothing, and what pads it would change the features.

        Parameters
        ----------
        lines
            As `line_pixels` makes them.

        Returns
        -------
        list of numpy.ndarray
            Shape (width / 8, 384) each, float32.
        """
        return [self._session.run(None, {_INPUT: line[None]})[0][0, :, 0].T for line in lines]


@functools.cache
def _cut() -> bytes:
    """Return the network up to where its convolutions end."""
    import onnx

    model = onnx.load(str(network_file()))
    return bytes(onnx.utils.Extractor(model).extract_model([_INPUT], [_OUTPUT]).SerializeToString())
