"""Whether gradients are right on this device, in float32: small learners against their oracles,
which share no trace with the engine.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import braintrace
from braintrace import checks

TOLERANCE = 2e-4  # of the largest element of a gradient

_layer = checks.Layer(
    drive=lambda p, x, own, one: x @ p["W"] + own @ p["U"] + one * p["b"],
    move=lambda p, h, y: 0.8 * h + 0.3 * jnp.tanh(h + y),
    out=lambda h: h,
)
_cell = checks.LayeredCell((_layer,), lambda p, z: z @ p["o"])

#: Of each rule its options, its oracle, and the oracle's options.
_RULES: dict[str, tuple[dict[str, Any], Any, dict[str, Any]]] = {
    "d_rtrl": ({}, checks.d_rtrl_oracle, {}),
    "pp_prop": ({"decay_or_rank": (0.9, 0.7)}, checks.pp_prop_oracle, {"decays": (0.9, 0.7)}),
    "ottt": ({"leak": 0.8}, checks.ottt_oracle, {"leak": 0.8}),
    "ostl_recurrent": ({}, checks.bptt_gradient, {}),
}


def smoke() -> list[dict[str, Any]]:
    """A row for each rule, with products of full precision: the largest error over its parameters
    in windows of 1 and 5 steps, and, as a control, that of BPTT where the rule is another one.
    """
    with jax.default_matmul_precision("highest"):
        return [_row(name, *parts) for name, parts in _RULES.items()]


def _row(name: str, options: Any, oracle: Any, given: Any) -> dict[str, Any]:
    params, carry, xs, _ = sequence = _data()
    learner = braintrace.compile(_cell, name, xs[0], params=params, carry=carry, **options)
    exact = oracle is checks.bptt_gradient

    @jax.jit  # one program: eagerly, each operation is compiled
    def gradients(params: Any, state: Any, *rest: Any) -> Any:
        whole = (params, *rest)
        other = None if exact else checks.bptt_gradient(_cell, *whole, loss_fn=_loss)[0]
        at = lambda k: learner.etrace_grad(params, state, *rest[1:], loss_fn=_loss, window=k)[0]
        return oracle(_cell, *whole, loss_fn=_loss, **given)[0], other, [at(k) for k in (1, 5)]

    state = learner.init(params, carry)
    expected, other, found = gradients(params, state, *sequence[1:])
    error = max(_error(of_window, expected) for of_window in found)
    control = None if other is None else _error(other, expected)
    ok = error <= TOLERANCE and (control is None or control > TOLERANCE)
    return {"rule": name, "error": error, "control": control, "ok": ok}


def _data(samples: int = 3, inputs: int = 4, neurons: int = 8, outputs: int = 2) -> Any:
    """Parameters, carry, inputs and targets."""
    random, n = np.random.default_rng(0), neurons
    draw = lambda *shape: jnp.asarray(random.normal(size=shape) / 2, jnp.float32)
    params = {"W": draw(inputs, n), "U": draw(n, n), "b": draw(n), "o": draw(n, outputs)}
    return params, (jnp.zeros((samples, n)),), draw(12, samples, inputs), draw(12, samples, outputs)


def _loss(out: Any, y: Any) -> Any:
    return ((out - y) ** 2).mean(-1)


def _error(found: Any, expected: Any) -> float:
    """The largest over the parameters."""
    pairs = zip(*(map(np.asarray, jax.tree.leaves(v)) for v in (found, expected)), strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)
