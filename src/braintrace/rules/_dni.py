"""Decoupled neural interfaces: a learned estimate in the place of the later loss."""

import dataclasses

from ..core._domains import described
from ..core._errors import UsageError
from ..core.engine import Rule
from ..core.signals import LaterLoss, SyntheticGradient
from ..core.traces import NoTrace
from ._algorithm import Algorithm, Compared
from ._options import option
from ._registry import register_algorithm


def estimator(name: str, value: object) -> SyntheticGradient:
    """A `SyntheticGradient`."""
    if isinstance(value, SyntheticGradient):
        return value
    raise UsageError(
        f"Invalid {name}.", got=described(value), expected="a braintrace.SyntheticGradient"
    )


@register_algorithm("dni")
@dataclasses.dataclass(frozen=True, kw_only=True)
class DNIRule(Algorithm):
    r"""Decoupled neural interfaces (DNI): synthetic gradients in the place of traces.

    .. math::

        \nabla_W L = \sum_t \left(\frac{\partial L^t}{\partial y^t} + M(h^t)
        \frac{\partial h^t}{\partial y^t}\right) \otimes x^t, \qquad
        M(h^t) \approx \frac{\partial \sum_{s > t} L^s}{\partial h^t}

    with y the weight's output and h the state at the step's exit: the instantaneous gradient of
    the loss and of what an estimator M says of the later loss. With a true M it is BPTT. A window
    of the multi-step VJP (`update_window(full=True)`) is differentiated as one, and M stands at its
    exit. M is a part of the traces, the same for all samples, and learns by
    `braintrace.train_synthetic_gradient`, from bootstrapped targets; at first it is zero, and the
    gradient is that of 'instantaneous'.

    Memory: the estimator, n (n + 1) numbers for a state of n. Time: O(B I O + B n^2).

    Args:
        synthesizer: the estimator, a `braintrace.SyntheticGradient`.

    References:
        Jaderberg et al., ICML 2017, arXiv 1608.05343, section 2.2.

    >>> import braintrace, jax.numpy as jnp
    >>> cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
    >>> w, h, xs = jnp.ones((2, 3)), jnp.zeros((1, 3)), jnp.ones((40, 1, 2))
    >>> learner = braintrace.compile(cell, "dni", xs[0], params=w, carry=h)
    >>> state, loss = learner.init(w, h), lambda out: out.sum(-1)
    >>> train = {"loss_fn": loss, "lr": 0.02, "epochs": 100}
    >>> trained, _ = braintrace.train_synthetic_gradient(learner, w, state, xs, **train)
    >>> gradient = lambda state: learner.etrace_grad(
    ...     w, state, xs[:4], loss_fn=loss, reduction="sum"
    ... )[0][0, 0].item()
    >>> gradient(state)  # of each of four steps 1
    4.0
    >>> abs(gradient(trained) - 8) < 0.2  # and 1/2 + 1/4 + ... of all that follow
    True
    """

    name = "DNI"

    synthesizer: SyntheticGradient = option(SyntheticGradient(), estimator, needed=True)

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({}, "O(n^2)", "an estimate of the later loss; here an untrained one"),)

    def parts(self) -> Rule:
        signal = LaterLoss(self.synthesizer)
        return Rule("DNI", NoTrace(estimated=True), (signal,), traces_all_state=True)
