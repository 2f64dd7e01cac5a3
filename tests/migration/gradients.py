"""The rows of the table of gradients: minimal models, the right gradient, and the other one."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from .by_hand import (
    KAPPA,
    SLOW,
    behind_a_thousand,
    behind_silent_steps,
    estimates,
    factorised,
    filtered,
)
from .minimal import (
    LEAK,
    B,
    Given,
    I,
    N,
    O,
    T,
    drawn,
    learner_of,
    oracle,
    sizes,
    step_by_step,
    stopped,
    through,
    times,
    zero,
)
from .steps import (
    AT_THE_PRODUCT,
    OWN_PATH,
    SHIFTED,
    adapting,
    as_softmax,
    at_its_own_step,
    bare_bias,
    changed,
    column_sums,
    convolved,
    elementwise,
    encoder,
    fires,
    leaky,
    linear_recurrence,
    lstm,
    masked,
    mixing,
    normalised,
    of_the_operand,
    readout,
    recurrent,
    reset_gate,
    scaled,
    self_weights,
    squashed,
    statistics_of_the_step,
    summed,
    synapse,
    tied,
    two_layers,
    with_bias,
)

LAYER = {"W": (I, N), "o": (N, O)}


@dataclasses.dataclass(frozen=True)
class Example:
    """A model of a row, with functions of its data that compute both gradients of `names`."""

    name: str
    step: Callable
    right: Callable[[Given], Mapping[str, Any]]
    other: Callable[[Given], Mapping[str, Any]] | None  # None: no number
    names: tuple[str, ...] = ("W",)
    params: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=lambda: LAYER)
    carry: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=lambda: {"h": (N,)})
    x: tuple[int, ...] = (I,)
    steps: int = T
    algorithm: str = "D_RTRL"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    run: Callable = step_by_step

    def given(self, dtype: Any = None) -> Given:
        def several(shapes: Mapping, seed: int) -> dict[str, jax.Array]:
            return {k: drawn(*s, seed=seed + i) for i, (k, s) in enumerate(shapes.items())}

        samples = (B,) if "batch_size" in self.options else ()
        data = Given(
            several(self.params, 0),
            several({k: samples + s for k, s in self.carry.items()}, 10),
            drawn(self.steps, *samples, *self.x, seed=20, scale=1.0),
            drawn(self.steps, *samples, O, seed=21, scale=1.0),
        )
        return jax.tree.map(lambda v: v.astype(dtype or v.dtype), data)

    def found(self, given: Given) -> dict[str, Any]:
        """By the package that is installed."""
        learner, model = learner_of(self.step, given, self.algorithm, **self.options)
        return self.run(learner, model, given)


GATES = ("Wi", "Wf", "Wg")
LSTM: dict[str, Any] = {
    "params": sizes((*GATES, "Wo"), I, N) | {"o": (N, O)},
    "carry": sizes(("h", "c"), N),
    "names": GATES,
}
SYNAPSE: dict[str, Any] = {"carry": sizes(("g", "v"), N)}
BIASED: dict[str, Any] = {
    "params": LAYER | {"b": (N,)},
    "names": ("b", "W"),
    "algorithm": "pp_prop",
    "options": {"decay_or_rank": 0.9},
}
OTTT: dict[str, Any] = {"algorithm": "OTTT", "options": {"leak": 0.9}}
SPIKES: dict[str, Any] = {"carry": {"v": (N,), "y": (O,)}, "algorithm": "OTPE"}
RECURRENT: dict[str, Any] = {"params": LAYER | {"U": (N, N)}, "names": ("U", "W")}
CONVOLVED: dict[str, Any] = {
    "params": {"K": (3, 1, 4), "b": (4,), "o": (20, O)},
    "carry": {"h": (5, 4)},
    "x": (5, 2),
    "names": ("K", "b"),
}

#: By the first cell of a row. Its other gradient is what the page says of it, or None where the
#: page gives no number.
ROWS: dict[str, tuple[Example, ...]] = {
    "a readout, a gate whose product feeds another product (the reset gate of a GRU), a layer in "
    "front of another one, C and D of an LRU": (
        Example("readout", readout, through(readout), zero, ("o",)),
        Example(
            "reset gate",
            reset_gate,
            oracle(reset_gate),
            zero,
            ("R",),
            params=LAYER | {"R": (I, N), "U": (N, N)},
        ),
        Example("in front", encoder, oracle(encoder), zero, ("E",), params=LAYER | {"E": (I, I)}),
        Example(
            "C and D",
            linear_recurrence,
            through(linear_recurrence),
            zero,
            ("C", "D"),
            params={"W": (I, N), "C": (N, O), "D": (I, O)},
        ),
    ),
    "a parameter that meets no operator: `+ b`": (
        Example("+ b", bare_bias, through(bare_bias), zero, ("b",), params=LAYER | {"b": (N,)}),
    ),
    "states that feed each other inside one step: LSTM (c, then h), a synapse and its membrane": (
        Example("LSTM", lstm, through(lstm), times(2, through(lstm)), steps=1, **LSTM),
        Example("LSTM, later", lstm, through(lstm), None, **LSTM),
        Example(
            "synapse", synapse, through(synapse), times(2, through(synapse)), steps=1, **SYNAPSE
        ),
        Example("synapse, later", synapse, through(synapse), None, **SYNAPSE),
    ),
    "a shift, a sum, a cumulative sum, a mean or a softmax over neurons in the recurrence": tuple(
        Example(name, mixing(name), through(mixing(name, own)), through(mixing(name, column_sums)))
        for name, own in OWN_PATH.items()
    ),
    "a scaled or masked weight outside of the operator, `x @ (2 * w)`": (
        Example(
            "2 * w", changed(scaled), through(changed(scaled)), times(0.5, through(changed(scaled)))
        ),
        Example("mask * w", changed(masked), through(changed(masked)), of_the_operand(masked)),
    ),
    "a sum of weights, `x @ (w + v)`": (
        Example(
            "w + v",
            changed(summed),
            through(changed(summed)),
            zero,
            ("V",),
            params=LAYER | {"V": (I, N)},
        ),
    ),
    "one weight used again behind its own operation, as in a tied readout": (
        Example(
            "tied",
            tied(),
            through(tied()),
            through(tied(stopped)),
            params={"W": (I, N), "q": (I, O)},
        ),
    ),
    "biases and elementwise parameters under `pp_prop`": (
        Example(
            "bias", with_bias, factorised(0.9), factorised(0.9, bias=False), steps=40, **BIASED
        ),
        Example(
            "elementwise",
            elementwise,
            factorised(0.9),
            factorised(0.9, bias=False),
            steps=40,
            **BIASED,
        ),
    ),
    "normalisation or a softmax between a product and the state": (
        Example("layer norm", normalised, statistics_of_the_step(normalised), zero),
        Example("softmax", as_softmax, statistics_of_the_step(squashed), zero),
    ),
    "a shift between a product and the state (`jnp.roll`)": (
        Example("roll", SHIFTED, through(SHIFTED), through(AT_THE_PRODUCT)),
    ),
    "OTTT where the input is scaled on its way, `0.9 V + 0.1 I`": (
        Example(
            "gain 0.1", fires(0.1), through(fires(0.1)), times(10, through(fires(0.1))), **OTTT
        ),
    ),
    "OTPE": (
        Example(
            "full",
            two_layers,
            estimates(True, full=True),
            estimates(False, full=True),
            options={"leak": LEAK, "mode": "full"},
            **SPIKES,
        ),
        Example(
            "approximate",
            two_layers,
            estimates(True),
            estimates(False),
            options={"leak": LEAK, "mode": "approx"},
            **SPIKES,
        ),
    ),
    "e-prop with a filter": (
        Example(
            "filter",
            fires(),
            filtered(True),
            filtered(False),
            algorithm="EProp",
            options={"kappa_filter_decay": KAPPA},
            run=behind_silent_steps,
        ),
    ),
    "OSTL with recurrence": (
        Example(
            "one layer",
            recurrent,
            through(recurrent),
            through(self_weights),
            algorithm="OSTLRecurrent",
            **RECURRENT,
        ),
    ),
    "OSTL without recurrence": (
        Example(
            "one layer",
            leaky,
            through(leaky),
            through(at_its_own_step),
            algorithm="OSTLFeedforward",
        ),
    ),
    "the bias correction of `pp_prop`": (
        Example(
            "after 1000 steps",
            leaky,
            factorised(SLOW),
            factorised(SLOW, corrected=False),
            steps=1003,
            algorithm="pp_prop",
            options={"decay_or_rank": SLOW},
            run=behind_a_thousand,
        ),
    ),
    "two old states in one equation, `V - a`": (
        Example("V - a", adapting, through(adapting), None, carry=sizes(("v", "a"), N)),
    ),
    "grouped convolutions": (
        Example(
            "two groups",
            convolved,
            through(convolved),
            None,
            options={"batch_size": B},
            **CONVOLVED,
        ),
    ),
}
