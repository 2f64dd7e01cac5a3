"""Layers for brainstate models, under the names of the field.

Ordinary layers are traced as they are, so some of these *are* brainstate's; convolutions and
standardised layers take units as well, the recurrent cells `in_size` and `out_size`; the others are
written here. Every further name is that of `brainstate.nn`: `from braintrace.nn import LayerNorm`
is brainstate's.
"""

from typing import Any

from ..compat import _precision  # isort: skip  (first: it guards the precision)
import brainstate
from brainstate.nn import Embedding, Linear, SignedWLinear

from ._conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    ScaledWSConv1d,
    ScaledWSConv2d,
    ScaledWSConv3d,
)
from ._gated import GRUCell, LSTMCell, MGUCell, URLSTMCell, ValinaRNNCell
from ._linear import GroupedLinear, LoRA, ScaledWSLinear, SparseLinear
from ._lru import LRUCell
from ._minimal import CFNCell, MiniGRU, MiniLSTM, MinimalRNNCell
from ._readout import LeakyRateReadout, LeakySpikeReadout

__all__ = [
    "Linear",
    "SignedWLinear",
    "ScaledWSLinear",
    "SparseLinear",
    "LoRA",
    "GroupedLinear",
    "Embedding",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ScaledWSConv1d",
    "ScaledWSConv2d",
    "ScaledWSConv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "LeakyRateReadout",
    "LeakySpikeReadout",
    "ValinaRNNCell",
    "GRUCell",
    "MGUCell",
    "LSTMCell",
    "URLSTMCell",
    "CFNCell",
    "MinimalRNNCell",
    "MiniGRU",
    "MiniLSTM",
    "LRUCell",
]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    try:
        return getattr(brainstate.nn, name)
    except AttributeError:
        raise AttributeError(f"neither braintrace.nn nor brainstate.nn has {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*__all__, *(n for n in dir(brainstate.nn) if not n.startswith("_"))})
