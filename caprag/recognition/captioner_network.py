"""A captioner's network: a convolutional encoder, and an LSTM that looks at its places while it writes characters.

It is the captioner of Xu et al. with soft attention, but for two things: places carry their row and column, as text
is read in an order, and attention need not go round all of them, as most of a picture is no caption. Knows pixels
and characters; where pictures come from, and what is asked about a reading, it does not.

References
----------
.. [1] K. Xu et al., "Show, Attend and Tell: Neural Image Caption Generation with Visual Attention", ICML 2015; the
   decoder is section 3.1.2, its output equation 7, the gate on the context section 4.2.1.
.. [2] D. Bahdanau, K. Cho, Y. Bengio, "Neural Machine Translation by Jointly Learning to Align and Translate",
   ICLR 2015; additive attention is section A.1.2.
.. [3] K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016: the encoder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from caprag.errors import ModelError

_hub: Any = transformers  # its annotations differ from version to version

View = Literal["frame", "band"]
"""What of a picture is seen: all of it, or the caption that is found in it."""

MODEL_TYPE = "caprag_captioner"
"""What a captioner's ``config.json`` calls itself."""

END, UNKNOWN = 0, 1
"""Tokens that are no character: the end of a text, and what stands for characters that the vocabulary lacks."""

CONFIG, VOCABULARY, WEIGHTS = "config.json", "vocabulary.json", "model.safetensors"
"""The files of a captioner's folder."""

ENCODER_FIELDS = (
    "embedding_size", "hidden_sizes", "depths", "layer_type", "hidden_act", "downsample_in_first_stage",
    "downsample_in_bottleneck",
)  # fmt: skip
"""What a ResNet is built from, of transformers' ``ResNetConfig``."""

_FIRST = 2
_SPECIAL = ("<end>", "<unknown>")
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's channels, in [0, 1]: what published ResNets were trained on."""

Row = tuple[int, ...]
State = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class CaptionerConfig:
    """How a captioner is built.

    Attributes
    ----------
    encoder
        `ENCODER_FIELDS` of a ResNet and their values.
    height, width
        Of what the encoder sees, in pixels, >= 1.
    crop
        What of a picture that is: its caption ``"band"``, or the whole ``"frame"``.
    max_length
        Most characters of a reading, its end counted as one, >= 1.
    embedding, hidden, attention
        Widths of a character's vector, of the LSTM, and of what attention compares in.
    dropout
        Share of the output's inputs that are dropped in training, in [0, 1).

    Raises
    ------
    ValueError
        Where a number is out of its range, `crop` is unknown, or a field of `encoder` is missing.
    """

    encoder: Mapping[str, Any]
    height: int = 64
    width: int = 640
    crop: View = "band"
    max_length: int = 64
    embedding: int = 128
    hidden: int = 256
    attention: int = 128
    dropout: float = 0.3

    def __post_init__(self) -> None:
        for name in ("height", "width", "max_length", "embedding", "hidden", "attention"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number >= 1, not {value!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), not {self.dropout}")
        if self.crop not in get_args(View):
            raise ValueError(f"crop must be one of {', '.join(get_args(View))}, not {self.crop!r}")
        if set(self.encoder) != set(ENCODER_FIELDS):
            raise ValueError(f"encoder must have {', '.join(ENCODER_FIELDS)}, not {', '.join(sorted(self.encoder))}")


class Encoded(NamedTuple):
    """Pictures as the decoder sees them.

    Attributes
    ----------
    places
        Shape (n, places, channels): what is where, row by row.
    keys
        Shape (n, places, attention): the same, as attention compares it.
    """

    places: torch.Tensor
    keys: torch.Tensor

    def pick(self, owners: torch.Tensor) -> Encoded:
        """Return the pictures of these numbers, each as often as it is named."""
        return Encoded(self.places[owners], self.keys[owners])


class Captioner(nn.Module):
    """The network, with its vocabulary.

    Parameters
    ----------
    config
        How it is built. Weights are drawn by torch's generator.
    characters
        What it can write, one character each, all different.

    Raises
    ------
    ValueError
        Where `characters` has something else.

    Notes
    -----
    A text's tokens are its characters and `END`. Each token's distribution is over all characters, `END` and
    `UNKNOWN`; a text has no `UNKNOWN`, so that the probabilities of all texts add up to less than 1 where a
    vocabulary left out rare characters, and to 1 but for texts without end where `UNKNOWN` was never learnt.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: CaptionerConfig, characters: Sequence[str]) -> None:
        super().__init__()
        if any(len(character) != 1 for character in characters) or len(set(characters)) < len(characters):
            raise ValueError(f"characters must be single ones, all different, not {list(characters)[:20]!r}...")
        self.config, self.characters = config, tuple(characters)
        self._ids = {character: place for place, character in enumerate(characters, _FIRST)}
        size = len(characters) + _FIRST
        self._start = size
        settings = dict(config.encoder)
        self.encoder: Any = _hub.ResNetModel(_hub.ResNetConfig(**settings))
        channels = settings["hidden_sizes"][-1]
        halved = 1 + len(settings["depths"]) + bool(settings["downsample_in_first_stage"])
        rows, columns = -(-config.height // 2**halved), -(-config.width // 2**halved)
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1) * 255, persistent=False)
        self.norm = nn.LayerNorm(channels)
        self.rows = nn.Parameter(torch.randn(rows, 1, channels) * 0.5)
        self.columns = nn.Parameter(torch.randn(1, columns, channels) * 0.5)
        self.keys = nn.Linear(channels, config.attention)
        self.query = nn.Linear(config.hidden, config.attention, bias=False)
        self.weight = nn.Linear(config.attention, 1, bias=False)
        self.gate = nn.Linear(config.hidden, channels)
        self.begin = nn.Linear(channels, 2 * config.hidden)
        self.embedding = nn.Embedding(size + 1, config.embedding)
        self.cell = nn.LSTMCell(config.embedding + channels, config.hidden)
        self.joined = nn.Linear(config.hidden + channels, config.embedding)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.embedding, size)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.output.weight.device

    def ids(self, text: str) -> Row:
        """Return the tokens of a text, without its end."""
        return tuple(self._ids.get(character, UNKNOWN) for character in text)

    def text(self, row: Sequence[int]) -> str:
        """Return the text of tokens that are characters all."""
        return "".join(self.characters[token - _FIRST] for token in row)

    def encode(self, pixels: torch.Tensor) -> Encoded:
        """Look at pictures.

        Parameters
        ----------
        pixels
            Shape (n, height, width, 3), uint8: RGB.

        Returns
        -------
        Encoded
            Of n pictures.
        """
        scaled = (pixels.to(self.device).permute(0, 3, 1, 2).float() - self.mean) / self.std
        maps = self.encoder(pixel_values=scaled).last_hidden_state.permute(0, 2, 3, 1)
        return self.compared((self.norm(maps) + self.rows + self.columns).flatten(1, 2))

    def compared(self, places: torch.Tensor) -> Encoded:
        """Return places, (n, places, channels), with their keys."""
        return Encoded(places, self.keys(places))

    def forward(self, pixels: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        """Return the logits, (n, tokens, vocabulary), of what follows each token of `said`, (n, tokens)."""
        return self.forced(self.encode(pixels), said)

    def forced(self, encoded: Encoded, said: torch.Tensor) -> torch.Tensor:
        """Return the same for pictures that were looked at."""
        state, told = self._first_state(encoded), []
        for tokens in said.unbind(1):
            logits, state = self._step(tokens, state, encoded)
            told.append(logits)
        return torch.stack(told, 1)

    def teaching(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Lay out texts for teacher forcing.

        Parameters
        ----------
        rows
            Tokens of n texts, without their ends.

        Returns
        -------
        said, wanted
            Shapes (n, longest + 1), int64: what the decoder is given, and what is to follow; -100 where nothing is.
        """
        longest = max(map(len, rows), default=0) + 1
        said = [[self._start, *row, *[END] * (longest - 1 - len(row))] for row in rows]
        wanted = [[*row, END, *[-100] * (longest - 1 - len(row))] for row in rows]
        return torch.tensor(said, device=self.device), torch.tensor(wanted, device=self.device)

    @torch.no_grad()
    def logprobs(self, encoded: Encoded, rows: Sequence[Sequence[int]]) -> list[float]:
        """Score a text for each picture by teacher forcing.

        Parameters
        ----------
        encoded
            n pictures.
        rows
            n texts' tokens, without their ends.

        Returns
        -------
        list of float
            ln p(text and its end | picture) in nats, <= 0; ``-inf`` for a text with `UNKNOWN`.
        """
        said, wanted = self.teaching(rows)
        told = self.forced(encoded, said).log_softmax(-1).gather(2, wanted.clamp_min(0)[..., None])[..., 0]
        sums = told.masked_fill(wanted < 0, 0.0).sum(1).clamp_max(0.0).tolist()
        return [-math.inf if UNKNOWN in row else value for row, value in zip(rows, sums, strict=True)]

    @torch.no_grad()
    def search(
        self, encoded: Encoded, *, width: int = 1, n_best: int = 1, max_length: int | None = None
    ) -> list[list[tuple[Row, float]]]:
        """Find probable texts by beam search.

        Parameters
        ----------
        encoded
            n pictures.
        width
            Of the beam, >= 1; at least `n_best` whatever it says. 1 takes the likeliest token at each step.
        n_best
            At most this many texts a picture, >= 1.
        max_length
            Most tokens of a text, its end among them; a text that reaches it is ended there. ``None``: the
            configuration's.

        Returns
        -------
        list of list of tuple
            For each picture the tokens of its texts, all different, and ln p(text and its end | picture) in nats,
            best first; at least one.
        """
        count, width, size = len(encoded.places), max(width, n_best), self.output.out_features
        longest = self.config.max_length if max_length is None else max_length
        first = torch.arange(count, device=self.device)[:, None] * width
        spread = encoded.pick(torch.arange(count, device=self.device).repeat_interleave(width))
        state = self._first_state(spread)
        tokens = torch.full((count * width,), self._start, device=self.device)
        # All beams of a picture begin alike: one is enough.
        scores = torch.full((count, width), -math.inf, device=self.device)
        scores[:, 0] = 0.0
        rows: list[list[Row]] = [[()] * width for _ in range(count)]
        found: list[list[tuple[Row, float]]] = [[] for _ in range(count)]
        for place in range(longest):
            logits, state = self._step(tokens, state, spread)
            told = logits.log_softmax(-1)
            told[:, UNKNOWN] = -math.inf
            if place == longest - 1:
                told[:, _FIRST:] = -math.inf
            scores, best = (scores[..., None] + told.view(count, width, size)).flatten(1).topk(width)
            beams, chosen = best // size, best % size
            state = (state[0][(first + beams).flatten()], state[1][(first + beams).flatten()])
            tokens = chosen.flatten()
            ended = (chosen == END) & scores.isfinite()
            for picture, beam in ended.nonzero().tolist():
                found[picture].append((rows[picture][int(beams[picture, beam])], float(scores[picture, beam])))
            scores = scores.masked_fill(chosen == END, -math.inf)
            rows = [
                [(*before[beam], token) for beam, token in zip(*pair, strict=True)]
                for before, *pair in zip(rows, beams.tolist(), chosen.tolist(), strict=True)
            ]
            for picture, texts in enumerate(found):
                texts.sort(key=lambda text: -text[1])
                # What goes on only grows less likely.
                if len(texts) >= n_best and float(scores[picture].max()) <= texts[n_best - 1][1]:
                    scores[picture] = -math.inf
            if not scores.isfinite().any():
                break
        return [[(row, min(0.0, score)) for row, score in texts[:n_best]] for texts in found]

    def _first_state(self, encoded: Encoded) -> State:
        hidden, cell = self.begin(encoded.places.mean(1)).tanh().chunk(2, 1)
        return hidden, cell

    def _step(self, tokens: torch.Tensor, state: State, encoded: Encoded) -> tuple[torch.Tensor, State]:
        """Take in a token of each text; the logits of the next, and the state after it."""
        hidden = state[0]
        weights = self.weight((encoded.keys + self.query(hidden)[:, None]).tanh()).softmax(1)
        context = self.gate(hidden).sigmoid() * (weights * encoded.places).sum(1)
        said = self.embedding(tokens)
        hidden, cell = self.cell(torch.cat([said, context], 1), state)
        output = (said + self.joined(torch.cat([hidden, context], 1))).tanh()
        return self.output(self.dropout(output)), (hidden, cell)

    def save(self, folder: Path) -> None:
        """Write `CONFIG`, `VOCABULARY` and `WEIGHTS` into a folder, which is made where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {"model_type": MODEL_TYPE, **asdict(self.config)}
        (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        tokens = json.dumps([*_SPECIAL, *self.characters], ensure_ascii=False)
        (folder / VOCABULARY).write_text(tokens + "\n", encoding="utf-8")
        save_file(weights_of(self), folder / WEIGHTS)


def weights_of(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return a network's weights, as safetensors writes them."""
    return {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}


def is_captioner(model: str | Path) -> bool:
    """Say whether this is the folder of a captioner."""
    try:
        found = json.loads(Path(model, CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("model_type") == MODEL_TYPE


def load_captioner(folder: str | Path, device: str | torch.device | None = None) -> Captioner:
    """Load what `Captioner.save` wrote.

    Parameters
    ----------
    folder
        The folder.
    device
        A torch device; ``None``: the first CUDA device, or the CPU where there is none.

    Returns
    -------
    Captioner
        On the device, in evaluation mode.

    Raises
    ------
    ModelError
        Where it is no captioner's folder, or damaged.
    """
    if not is_captioner(folder):
        raise ModelError(f"{folder}: holds no captioner; give a folder that caprag train captioner wrote")
    try:
        config = json.loads(Path(folder, CONFIG).read_text(encoding="utf-8"))
        tokens = json.loads(Path(folder, VOCABULARY).read_text(encoding="utf-8"))
        if tokens[:_FIRST] != list(_SPECIAL):
            raise ValueError(f"{VOCABULARY} begins with {tokens[:_FIRST]!r}, not {list(_SPECIAL)!r}")
        network = Captioner(CaptionerConfig(**{k: v for k, v in config.items() if k != "model_type"}), tokens[_FIRST:])
        network.load_state_dict(load_file(Path(folder, WEIGHTS)))
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: the captioner can't be loaded; copy or train it again: {error}") from error
    return network.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
