"""The user's cell as data: trees and flat leaves, what is trained, losses, masks and resets."""

from ._arguments import Mask, Reset, Timed, check_driver, check_reset, sequence_length
from ._batch import BatchSpec, reset_axes, said_batch, spread_axes
from ._cell import Cell, CellFunction, Tree, compile_cell
from ._convert import check_values
from ._failing import (
    IN_ORDER,
    MisfitError,
    first_steps,
    is_swapped,
    shown,
    users_step,
    whole_sequence,
)
from ._loss import check_samples, split
from ._samples import (
    check_finite,
    common_size,
    masked,
    reduced,
    restarted,
    scale_of,
    weigh,
    weights_of,
)
from ._select import Patterns
from ._user_step import Outside, Take, UserStep, check_loss, plain_user_step
from ._values import Values, merged
