"""A third factor: a modulator, given at each step, in place of the loss."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from ..analysis import Exit
from ._editor import Edit, Editor, sg
from ._linear_loss import add_linear_loss, groups_of, read_by_others, stop_for_others

MODULATOR = "modulator"  # the signal m of a group, times the weight of the step's loss


@dataclasses.dataclass(frozen=True)
class Modulator(Edit):
    """The signal m_l, an argument of the step, at the activity z_l of each hidden group; nothing
    from above reaches it. The output keeps its error.

    It is the gradient of `sum_l <m_l, z_l>`; with a `leak`, of the leaky sum `F <- leak F + z` in
    the place of z, whose eligibility is the filtered one. Of a complex activity it is the real part
    that m acts on.

    >>> from braintrace import rules
    >>> rules.Modulator().replaces
    'a modulator stands for the loss'
    """

    replaces: ClassVar[str] = "a modulator stands for the loss"
    multi_step_problem: ClassVar[str] = (
        "use vjp_method='single-step': BPTT inside a window would follow the true error and the "
        "traces the modulator"
    )

    leak: float | None = None

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        read, dtype = read_by_others(editor, exits, "A modulator")
        term = lambda z, m: (sg(m) * jnp.real(z)).sum()
        for z, groups in groups_of(read).items():
            modulator = editor.add_leaf(MODULATOR, np.zeros(z.shape, dtype))
            own = [x for x in exits if x.group in groups]
            filtered = z if self.leak is None else editor.leaky_sum(z, self.leak, own)
            add_linear_loss(editor, editor.apply(term, filtered, modulator))
        stop_for_others(editor, exits, read)
