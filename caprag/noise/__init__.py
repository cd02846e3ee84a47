"""How readers misread captions: a channel from sentences to readings, fitted on real pairs."""

from caprag.noise.channel import NoiseChannel

__all__ = ["NoiseChannel"]
