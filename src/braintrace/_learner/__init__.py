"""Learners without a framework: a compiled cell, one online update, and gradients over sequences."""

from ._arguments import check_driver as check_driver
from ._arguments import sequence_length as sequence_length
from ._cell import Cell as Cell
from ._cell import Tree as Tree
from ._cell import compile_cell as compile_cell
from ._extra import driver_signals as driver_signals
from ._extra import target_signal as target_signal
from ._fit import fit_sequence as fit_sequence
from ._lanes import check_finite as check_finite
from ._lanes import check_reset as check_reset
from ._lanes import lane_count as lane_count
from ._lanes import resetting as resetting
from ._lanes import shielded as shielded
from ._lanes import weigh as weigh
from ._lanes import weights_of as weights_of
from ._online import update as update
from ._online import window as window
from ._sequence import default_window as default_window
from ._sequence import differentiable_prelude as differentiable_prelude
from ._sequence import evolve as evolve
from ._sequence import sequence_gradient as sequence_gradient
from ._window import Body as Body
from ._window import Stepped as Stepped
from ._window import cell_body as cell_body
from ._window import window_gradient as window_gradient
