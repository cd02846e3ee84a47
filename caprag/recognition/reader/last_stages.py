"""The tower's last two stages, and what a reader changes in them.

As a module they can be trained: transformers' own classes with the network's weights. To read, the changes are added to
the network that runs outside torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from caprag.recognition.reader.tower import LAST_STAGES, POINTWISE, network_file


class TowerChanges(nn.Module):
    """What was learnt on top of the weights of the tower's last two stages: for each a product of two thin matrices."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.down = nn.ParameterDict(
            {name: torch.randn(rank, into) / into**0.5 for name, (_, into) in POINTWISE.items()}
        )
        self.up = nn.ParameterDict({name: torch.zeros(out, rank) for name, (out, _) in POINTWISE.items()})

    def product(self, name: str) -> torch.Tensor:
        """Return what is added to the weights of one convolution, (out, in)."""
        made: torch.Tensor = self.up[name] @ self.down[name]
        return made

    @torch.no_grad()
    def weights(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return all that is added, as the tower takes it."""
        return {name: self.product(name).to("cpu", torch.float32).numpy() for name in POINTWISE}


class LastStages(nn.Module):
    """The tower's last two stages, their weights with changes that can be learnt; the rest stands still.

    Parameters
    ----------
    changes
        What is added to the weights of `POINTWISE`.
    """

    def __init__(self, changes: TowerChanges) -> None:
        super().__init__()
        import onnx
        from onnx import numpy_helper
        from transformers.models.pp_lcnet_v4.configuration_pp_lcnet_v4 import PPLCNetV4Config
        from transformers.models.pp_lcnet_v4.modeling_pp_lcnet_v4 import PPLCNetV4Block

        graph = onnx.load(str(network_file())).graph
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        block: Any = PPLCNetV4Block
        stages = [block(PPLCNetV4Config(), place) for place in (2, 3)]
        blocks: Any = nn.Sequential(*(part for stage in stages for part in stage.blocks))
        self.blocks = blocks
        self._fill(graph, stored)
        # Convolutions of single pixels are quicker with the channels last.
        blocks.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)
        pointwise: list[nn.Module] = [
            layer.convolution for part in blocks for layer in (part.channel_conv1, part.channel_conv2)
        ]
        for name, convolution in zip(POINTWISE, pointwise, strict=True):
            parametrize.register_parametrization(convolution, "weight", _Changed(changes, name))

    def _fill(self, graph: Any, stored: dict[str, Any]) -> None:
        nodes = list(graph.node)
        begin = next(place for place, node in enumerate(nodes) if LAST_STAGES in node.input and node.op_type == "Conv")
        biases = {node.input[0]: node.input[1] for node in nodes if node.op_type == "Add"}
        convolutions = iter([node for node in nodes[begin:] if node.op_type == "Conv"])
        blocks: Any = self.blocks
        for block in blocks:
            gates = getattr(block.token_squeeze_excitation, "convolutions", ())
            for layer in (block.token_conv, *gates, block.channel_conv1, block.channel_conv2):
                # A normalisation is a part of the network's convolutions already; transformers' class has it apart.
                plain = layer if isinstance(layer, nn.Conv2d) else getattr(layer, "convolution", None)
                if plain is None:
                    continue
                node = next(convolutions)
                weight = torch.tensor(stored[node.input[1]])
                bias = torch.tensor(stored[biases[node.output[0]]]).flatten()
                with torch.no_grad():
                    plain.weight.copy_(weight)
                    if plain.bias is not None:
                        plain.bias.copy_(bias)
                    else:
                        norm = layer.normalization
                        norm.running_var.fill_(1.0 - norm.eps)
                        norm.bias.copy_(bias)

    def train(self, mode: bool = True) -> LastStages:  # noqa: ARG002
        """Stay as it was made: its normalisations stand still."""
        return self

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the tower's features, (n, steps, 384), of what the stages begin with, (n, 96, 12, 2 steps)."""
        found: torch.Tensor = self.blocks(maps.contiguous(memory_format=torch.channels_last))
        return functional.avg_pool2d(found, (3, 2)).squeeze(2).transpose(1, 2)


class _Changed(nn.Module):
    def __init__(self, changes: TowerChanges, name: str) -> None:
        super().__init__()
        self.changes, self.name = changes, name

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.changes.product(self.name)[:, :, None, None]
