"""Layers for brainstate models, under the names of the field.

Ordinary layers are traced as they are, so some of these *are* brainstate's; convolutions and
standardised layers take units as well; the others are written here. Every further name is that of
`brainstate.nn`: `from braintrace.nn import LayerNorm` is brainstate's.
"""

from typing import Any

from ..compat import _precision  # isort: skip  # noqa: F401  (first: it guards the precision)
import brainstate
from brainstate.nn import Embedding as Embedding
from brainstate.nn import Linear as Linear
from brainstate.nn import SignedWLinear as SignedWLinear

from ._conv import Conv1d as Conv1d
from ._conv import Conv2d as Conv2d
from ._conv import Conv3d as Conv3d
from ._conv import ConvTranspose1d as ConvTranspose1d
from ._conv import ConvTranspose2d as ConvTranspose2d
from ._conv import ConvTranspose3d as ConvTranspose3d
from ._conv import ScaledWSConv1d as ScaledWSConv1d
from ._conv import ScaledWSConv2d as ScaledWSConv2d
from ._conv import ScaledWSConv3d as ScaledWSConv3d
from ._gated import GRUCell as GRUCell
from ._gated import LSTMCell as LSTMCell
from ._gated import MGUCell as MGUCell
from ._gated import URLSTMCell as URLSTMCell
from ._gated import ValinaRNNCell as ValinaRNNCell
from ._linear import GroupedLinear as GroupedLinear
from ._linear import LoRA as LoRA
from ._linear import ScaledWSLinear as ScaledWSLinear
from ._linear import SparseLinear as SparseLinear
from ._lru import LRUCell as LRUCell
from ._minimal import CFNCell as CFNCell
from ._minimal import MiniGRU as MiniGRU
from ._minimal import MiniLSTM as MiniLSTM
from ._minimal import MinimalRNNCell as MinimalRNNCell
from ._readout import LeakyRateReadout as LeakyRateReadout
from ._readout import LeakySpikeReadout as LeakySpikeReadout
from ._weights import load_weights as load_weights

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
    "load_weights",
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
