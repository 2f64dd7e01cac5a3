"""What a site rule knows: how one weight operation lays out an eligibility trace. And the registry
of rules.
"""

import abc
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num

from .._compat import Primitive, bind
from .._domains import described
from .._errors import UsageError
from ..jaxpr import Atom, Equation
from ..kernels import met


class SiteRule(abc.ABC):
    """How the trace of one weight operation `y = op(W, x)`, linear in W, is laid out.

    The trace has one entry for each element of y and each *contraction index* c, the elements of W
    that feed one element of y: its shape is `y.shape + contraction`, unless the rule says otherwise
    (`trace_shape`). `data` are the operation's other operands. Laws (tested for every rule by
    `braintrace.checks.check_site_rule`):

    * `spread(f, data)` is the derivative of `f * y` with respect to W, entry by entry:
      `at_entries(f)` times the data;
    * `collect(spread(f, data))` equals `weight_gradient(represent(data), f)`, the operation's own
      weight gradient at f.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> rule = braintrace.checks.check_site_rule(
    ...     jnp.dot, jnp.ones((2, 3)), jnp.ones((3, 4)), weight=1
    ... )
    >>> isinstance(rule, braintrace.SiteRule), rule.contraction()
    (True, (3,))
    """

    def __init__(self, equation: Equation, operand: int):
        self.equation, self.operand = equation, operand

    @property
    def data(self) -> tuple[int, ...]:
        """Numbers of the operands that the weight meets; the others are fixed."""
        return tuple(k for k in range(len(self.equation.inputs)) if k != self.operand)

    #: Whether `weight_gradient_sum` takes the time of the data that are not zero.
    counts_events: bool = False

    #: The atoms whose values the rule itself needs: indices, say.
    structure: tuple[Atom, ...] = ()

    @property
    def is_bound(self) -> bool:
        """Whether it has them: they are constants of the program, or `bound` has put them in."""
        return True

    def bound(self, values: Sequence[jax.Array]) -> "SiteRule":
        """The rule with the values of its `structure`, which the prelude has computed."""
        return self

    @property
    def trace_shape(self) -> tuple[int, ...]:
        """Shape of the trace of one state slot."""
        return (*self._y_shape, *self.contraction())

    @property
    def _y_shape(self) -> tuple[int, ...]:
        return self.equation.outputs[0].shape

    def at_entries(self, values: jax.Array) -> jax.Array:
        """Values shaped as y, read by each entry of the trace: they broadcast against it."""
        return values.reshape(values.shape + (1,) * len(self.contraction()))

    @abc.abstractmethod
    def contraction(self) -> tuple[int, ...]:
        """Shape of the contraction index."""

    @abc.abstractmethod
    def spread(self, f: jax.Array, data: list[jax.Array]) -> jax.Array:
        """`f` (shape of y) times the data that each element of W meets: shape `y.shape +
        contraction`.
        """

    @abc.abstractmethod
    def collect(self, entries: jax.Array) -> jax.Array:
        """Sum trace-shaped entries into the shape of W."""

    def contract(self, signals: list[jax.Array], traces: list[jax.Array]) -> jax.Array:
        """`collect(sum_s signals[s] traces[s])`, each signal shaped as y, summed over an axis of
        further samples in front.
        """
        at_entries = jax.vmap(self.at_entries)
        terms = [met(at_entries(a), e) for a, e in zip(signals, traces, strict=True)]
        return self.collect(sum_steps(sum(terms[1:], terms[0])))

    @property
    def outer_layout(self) -> str | None:
        """How a sample's trace f[o] x[i] lies, which is as W does: 'oi' or 'io'; None where it is
        not such a product.

        Then the trace has the shape (samples, *shape of W), without samples that of W, and `outer`
        gives x.
        """
        return None

    def outer(self, data: list[jax.Array]) -> Num[Array, "... B I"]:
        """With an `outer_layout`: the data as (..., samples, I); leading axes stay. Without samples
        there is one.
        """
        raise TypeError(f"{type(self).__name__} has no outer form")

    @abc.abstractmethod
    def lane_axis(self, axis: int) -> int | None:
        """The axis of the represented data that runs along `axis` of y, or None."""

    def entry_axis(self, axis: int) -> int | None:
        """The axis of the trace that runs along `axis` of y, or None."""
        own_layout = type(self).trace_shape is not SiteRule.trace_shape
        return None if own_layout else axis

    def neurons(self) -> list[tuple[int, int | None]]:
        """The axes of y that W may be divided along between devices, the last one first choice,
        each with the axis of W that runs along it, or None: then y and the trace alone have it.
        """
        return []

    def spread_sum(self, f: Num[Array, "T ..."], data: list[jax.Array]) -> jax.Array:
        """`sum_t spread(f[t], data[t])` over a leading time axis."""
        first = jax.eval_shape(self.spread, f[0], [d[0] for d in data])
        add = lambda total, at: (total + self.spread(at[0], at[1]), None)
        return jax.lax.scan(add, jnp.zeros(first.shape, first.dtype), (f, data))[0]

    def represent(self, data: list[jax.Array]) -> jax.Array:
        """The data as one array of numbers in which y is linear, so that it can be filtered over
        time.
        """
        (x,) = data
        return x

    @property
    def keeps_data(self) -> bool:
        """Whether the represented data are the data, axis by axis."""
        return type(self).represent is SiteRule.represent

    def weight_gradient(self, x: jax.Array, c: jax.Array) -> jax.Array:
        """The gradient of W for represented data x and the cotangent c of y: the operation's own,
        at the dtype of c.
        """
        return self._pull(lambda weight: self._operation(weight, x), c)

    def weight_gradient_sum(self, x: Num[Array, "T ..."], c: Num[Array, "T ..."]) -> jax.Array:
        """`sum_t weight_gradient(x[t], c[t])` as one operation over a leading time axis."""
        return self._pull(lambda weight: jax.vmap(lambda x: self._operation(weight, x))(x), c)

    def data_gradient_sum(
        self, data: list[jax.Array], c: Num[Array, "T ..."], weight: jax.Array
    ) -> jax.Array:
        """The gradient of `weight` for the operation's own data and cotangents of y, both time
        first, summed over time.
        """
        if len(self.data) + 1 != len(self.equation.inputs):  # there are operands beside these two
            return self.weight_gradient_sum(jax.vmap(lambda *d: self.represent(list(d)))(*data), c)

        def operation(weight: jax.Array) -> jax.Array:
            def once(*data: jax.Array) -> jax.Array:
                values = list(data)
                values.insert(self.operand, weight)
                return self.equation.bind(values)[0]

            return jax.vmap(once)(*data)

        return jax.vjp(operation, weight)[1](c)[0]

    def _operation(self, weight: jax.Array, x: jax.Array) -> jax.Array:
        values = [x.astype(weight.dtype)]
        values.insert(self.operand, weight)
        params = dict(self.equation.params)
        if "preferred_element_type" in params:
            params["preferred_element_type"] = None
        return bind(self.equation.primitive, values, params)[0]

    def _pull(self, operation: Callable[[jax.Array], jax.Array], c: jax.Array) -> jax.Array:
        weight = jnp.zeros(self.equation.inputs[self.operand].shape, c.dtype)
        return jax.vjp(operation, weight)[1](c)[0]


def sum_steps(values: Num[Array, "T ..."]) -> jax.Array:
    """The sum over axis 0, as a product with ones: compilers sum over the major axis of a large
    array at a crawl.
    """
    ones = jnp.ones((1, values.shape[0]), values.dtype)
    total = jnp.matmul(
        ones, values.reshape(values.shape[0], -1), precision=jax.lax.Precision.HIGHEST
    )
    return total.reshape(values.shape[1:])


RuleMaker = Callable[[Equation, int], SiteRule | None]
_MAKERS: dict[Primitive, RuleMaker] = {}
_NAMED: dict[str, RuleMaker] = {}  # of packages that are not imported here


def register_site_rule(primitive: Primitive, make: RuleMaker) -> None:
    """Teach the library a weight operation.

    `make(equation, operand)` returns the rule for parameters at `equation.inputs[operand]`, or None
    when the operation is not linear in that operand.

    >>> import braintrace
    >>> from jax.extend.core import Primitive
    >>> stencil_p = Primitive("stencil")  # of your own
    >>> no_rule = lambda equation, operand: None
    >>> braintrace.register_site_rule(stencil_p, no_rule)
    """
    if not isinstance(primitive, Primitive) or not callable(make):
        raise UsageError(
            "Not a primitive and a maker of rules.",
            got=f"{described(primitive)}, {described(make)}",
            expected="a jax.extend.core.Primitive, and a function (equation, operand) -> rule",
        )
    _MAKERS[primitive] = make


def has_site_rule(primitive: Primitive) -> bool:
    """Whether rules are registered for a primitive."""
    return primitive in _MAKERS


def register_named_rule(name: str, make: RuleMaker) -> None:
    """As `register_site_rule`, for a primitive of a package that is not imported here, by its
    name.
    """
    _NAMED[name] = make


def site_rule(equation: Equation, operand: int) -> SiteRule | None:
    """The rule of a parameter at `equation.inputs[operand]`, or None when no rule covers it."""
    make = _MAKERS.get(equation.primitive) or _NAMED.get(equation.primitive.name)
    return None if make is None else make(equation, operand)
