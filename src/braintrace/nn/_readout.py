"""Leaky readouts: of rates and of spikes."""

from collections.abc import Callable
from typing import Any, Literal

import brainstate
import brainunit
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core._domains import choice
from ..core._errors import UsageError
from ..operators import matmul
from ..operators._units import Value, join, split
from ._arguments import FIVE_MS, KAIMING, ZERO, Init, Size, Stateful, check_inits, sizes


class _Leaky(Stateful):
    """A product under a leak of `exp(-dt / tau)`, with `dt` of the environment when the layer is
    made.
    """

    def __init__(self, in_size: Size, out_size: Size, tau: Value, w_init: Init, name: str | None):
        super().__init__(name=name)
        inputs, outputs = sizes(in_size, out_size)
        self.in_size, self.out_size, self.tau = (inputs,), (outputs,), tau
        check_inits(w_init=w_init)
        self.decay = _decay(tau)
        self.W = brainstate.ParamState(brainstate.nn.init.param(w_init, (inputs, outputs)))

    def _initial(self, batch_size: int | None) -> Value:
        state = brainstate.nn.init.param(self._state_init, self.out_size, batch_size)
        return join(state, split(self.W.value)[1]) if self._state_init is ZERO else state


class LeakyRateReadout(_Leaky):
    """`r_t = exp(-dt/tau) r_{t-1} + x_t W`: a leaky sum of what the readout receives. Exact under
    D-RTRL.

    Args:
        in_size, out_size: numbers of inputs and outputs.
        tau: time constant, in the unit of the environment's `dt` (5 ms).
        w_init: of W, (in, out).
        r_init: of the state; by default zeros in the unit of W, which is that of the state where x
            has none: `ZeroInit(unit=...)` else.
        name: of the module.

    Raises:
        UsageError: when the environment has no `dt`, or its unit is not that of tau.

    >>> import brainstate
    >>> import brainunit as u
    >>> import braintrace
    >>> with brainstate.environ.context(dt=0.1 * u.ms):
    ...     readout = braintrace.nn.LeakyRateReadout(in_size=3, out_size=2, tau=5 * u.ms)
    >>> readout.init_state(batch_size=4)
    >>> readout(brainstate.random.randn(4, 3)).shape
    (4, 2)
    """

    r: Any
    _states = ("r",)

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        tau: Value = FIVE_MS,
        w_init: Init = KAIMING,
        r_init: Init = ZERO,
        name: str | None = None,
    ):
        super().__init__(in_size, out_size, tau, w_init, name)
        self._state_init = r_init

    def update(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        """One step: the new state."""
        self.r.value = self.decay * self.r.value + matmul(x, self.W.value)
        return self.r.value


@jax.custom_jvp
def triangle_spike(v: Float[Array, "..."]) -> Float[Array, "..."]:
    """1 where v > 0, else 0; the surrogate derivative is `0.3 max(0, 1 - |v|)` (Bellec et al.
    2018).
    """
    return (v > 0).astype(v.dtype)


triangle_spike.defjvps(lambda dv, _, v: 0.3 * jnp.maximum(0, 1 - jnp.abs(v)) * dv)


class LeakySpikeReadout(_Leaky):
    """Leaky neurons as a readout: their output is their spikes.

        V'  = V_{t-1} - V_th z_{t-1} ('soft'), or (1 - z_{t-1}) V_{t-1} ('hard')
        V_t = exp(-dt/tau) V' + x_t W
        z_t = spike((V_t - V_th) / V_th)

    The reset is detached: no gradient goes through z_{t-1}.

    Args:
        in_size, out_size: numbers of inputs and neurons.
        tau: time constant, in the unit of the environment's `dt` (5 ms).
        V_th: threshold, positive, in the unit of V.
        w_init: of W, (in, out).
        V_initializer: of the potential; by default zeros in the unit of W.
        spk_fun: the spike with its surrogate derivative; by default `0.3 max(0, 1 - |v|)`.
        spk_reset: 'soft' or 'hard'.
        name: of the module.

    Raises:
        UsageError: for another reset or a threshold that is not positive, and as
            `LeakyRateReadout`.

    >>> import brainstate
    >>> import brainunit as u
    >>> import braintrace
    >>> with brainstate.environ.context(dt=0.1 * u.ms):
    ...     readout = braintrace.nn.LeakySpikeReadout(in_size=3, out_size=2)
    >>> readout.init_state(batch_size=4)
    >>> readout(brainstate.random.randn(4, 3)).shape
    (4, 2)
    """

    V: Any
    _states = ("V",)

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        tau: Value = FIVE_MS,
        V_th: Value = 1.0,
        w_init: Init = KAIMING,
        V_initializer: Init = ZERO,
        spk_fun: Callable[[jax.Array], jax.Array] = triangle_spike,
        spk_reset: Literal["soft", "hard"] = "soft",
        name: str | None = None,
    ):
        super().__init__(in_size, out_size, tau, w_init, name)
        choice("spk_reset", spk_reset, ("soft", "hard"))
        if not jnp.all(split(V_th)[0] > 0):
            raise UsageError("Invalid V_th.", got=str(V_th), expected="a threshold above 0")
        if not callable(spk_fun):
            raise UsageError("Invalid spk_fun.", got=repr(spk_fun), expected="a function of v")
        self.V_th, self.spk_fun, self.spk_reset = V_th, spk_fun, spk_reset
        self._state_init = V_initializer

    @property
    def spike(self) -> Float[Array, "*B O"]:
        """The spikes of the potential as it stands."""
        return self.spk_fun((self.V.value - self.V_th) / self.V_th)

    def update(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        """One step: the new spikes."""
        V, z = self.V.value, jax.lax.stop_gradient(self.spike)
        V = V - self.V_th * z if self.spk_reset == "soft" else (1 - z) * V
        self.V.value = self.decay * V + matmul(x, self.W.value)
        return self.spike


def _decay(tau: Value) -> float | jax.Array:
    dt = brainstate.environ.get("dt", None)
    if dt is None:
        raise UsageError(
            "The environment has no time step.",
            got="no dt",
            expected="brainstate.environ.set(dt=...) before the layer is made",
            do="set dt, or make the layer in brainstate.environ.context(dt=...)",
        )
    if brainunit.get_unit(dt).dim != brainunit.get_unit(tau).dim:
        raise UsageError(
            "tau and dt have different units.",
            got=f"tau={tau}, dt={dt}",
            do="give both a unit of time",
        )
    if not np.all(np.asarray(split(tau)[0]) > 0):
        raise UsageError("Invalid tau.", got=str(tau), expected="a time constant above 0")
    decay = np.exp(-np.asarray(dt / tau, np.float64))  # whatever the precision of the layer
    return float(decay) if decay.ndim == 0 else jnp.asarray(decay, brainstate.environ.dftype())
