"""The vision tower of the shipped reader: what PP-OCRv6's recogniser sees, before it decides on characters.

The network is the one in the installed rapidocr; it is cut where its convolutions end, and nothing of it is stored
here. A reader may carry changes to the weights of its last two stages. Knows one line of text at a time.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from caprag.errors import ModelError
from caprag.workers import available_cpus

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
_INPUT = "x"

END, LAST_STAGES = "p2o.pd_op.pool2d.1.0", "p2o.pd_op.add.18.0"
"""Names in the network: where the tower ends, (1, 384, 1, width / 8), and what its last two stages
begin with, (1, 96, 12, width / 4)."""

POINTWISE: Mapping[str, tuple[int, int]] = {
    "conv2d_86": (192, 96), "conv2d_87": (192, 192), "conv2d_90": (384, 192), "conv2d_91": (192, 384),
    "conv2d_94": (384, 192), "conv2d_95": (192, 384), "conv2d_98": (384, 192), "conv2d_99": (192, 384),
    "conv2d_102": (384, 192), "conv2d_103": (192, 384), "conv2d_106": (384, 192), "conv2d_107": (192, 384),
    "conv2d_110": (384, 192), "conv2d_111": (192, 384), "conv2d_113": (384, 192), "conv2d_114": (384, 384),
    "conv2d_117": (768, 384), "conv2d_118": (384, 768), "conv2d_121": (768, 384), "conv2d_122": (384, 768),
}  # fmt: skip
"""The last two stages' convolutions of single pixels, in their order: channels out and in."""

Pixels = npt.NDArray[np.float32]
LineBytes = npt.NDArray[np.uint8]


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


def line_bytes(line: Image.Image) -> LineBytes:
    """Scale a line to the tower's height.

    Parameters
    ----------
    line
        A picture of one line of text, any size.

    Returns
    -------
    numpy.ndarray
        Shape (48, width, 3), uint8, red first; width a multiple of 32, from 32 to 3200 pixels. What is added on the
        right is grey.
    """
    width = round(line.width * HEIGHT / max(1, line.height))
    width = min(max(width, 1), _WIDEST)
    pixels = np.full((HEIGHT, -(-width // _UNIT) * _UNIT, 3), 128, np.uint8)
    pixels[:, :width] = np.asarray(line.convert("RGB").resize((width, HEIGHT), Image.Resampling.BILINEAR))
    return pixels


def line_pixels(line: Image.Image | LineBytes) -> Pixels:
    """Return what the tower takes of a line: (3, 48, width), float32 in [-1, 1], blue first."""
    scaled = line_bytes(line) if isinstance(line, Image.Image) else line
    pixels: Pixels = scaled[:, :, ::-1].transpose(2, 0, 1).astype(np.float32) / 127.5 - 1.0
    return pixels


def steps_of(width: int) -> int:
    """Return how many steps the tower has for a line of so many pixels."""
    return width // STRIDE


class Tower:
    """Turns lines into features.

    Parameters
    ----------
    n_threads
        Lines that are looked at at the same time, each by one thread; ``None``: as many as there are cores.
    changes
        What is added to weights of the last two stages, by the names in `POINTWISE`: (out, in).
    end
        Where it ends: `END`, or `LAST_STAGES` for what those begin with.
    """

    def __init__(
        self, n_threads: int | None = None, *, changes: Mapping[str, npt.NDArray[Any]] | None = None, end: str = END
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        network = _changed(_cut(end), changes) if changes else _cut(end)
        self._session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        self._threads = available_cpus() if n_threads is None else n_threads
        self._pool: ThreadPoolExecutor | None = None

    def maps(self, lines: Sequence[Pixels]) -> list[npt.NDArray[np.float32]]:
        """Return what the network ends with for lines as `line_pixels` makes them: (channels, rows, steps) each.

        One by one: on a CPU a batch saves nothing, and what pads it would change the features.
        """
        if self._threads == 1 or len(lines) < 2:
            return [self._map(line) for line in lines]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads)
        return list(self._pool.map(self._map, lines))

    def _map(self, line: Pixels) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = self._session.run(None, {_INPUT: line[None]})[0][0]
        return found

    def features(self, lines: Sequence[Pixels]) -> list[npt.NDArray[np.float32]]:
        """Describe lines.

        Parameters
        ----------
        lines
            As `line_pixels` makes them.

        Returns
        -------
        list of numpy.ndarray
            Shape (width / 8, 384) each, float32.
        """
        return [found[:, 0].T for found in self.maps(lines)]


@functools.cache
def _cut(end: str) -> bytes:
    """Return the network up to one of its tensors."""
    import onnx

    model = onnx.load(str(network_file()))
    return bytes(onnx.utils.Extractor(model).extract_model([_INPUT], [end]).SerializeToString())


def _changed(network: bytes, changes: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Add to weights of a network."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(network)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, change in changes.items():
        tensor = stored[f"{name}.w_0"]
        weight = numpy_helper.to_array(tensor) + change.astype(np.float32)[:, :, None, None]
        tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    return bytes(model.SerializeToString())
