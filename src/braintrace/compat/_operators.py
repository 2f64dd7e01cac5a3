"""Operators that programs of the PyPI package register: functions in JAX, traced as such."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Primitive

from ..core._compat import derive_rules
from ..core._domains import described, flag, known
from ..core._errors import UsageError
from ..core.sites import has_site_rule

#: The rules of an operator there; here the operations that it is made of have theirs.
_RULES = (
    *("dt_to_t", "xy_to_dw", "init_drtrl", "init_pp"),
    *("fast_path", "pp_x_repr", "snap_anchor", "snap_adjacency"),
)


class ETPPrimitive(Primitive):
    """An operator by `register_primitive`: `bind(x, w)` is the function that it was registered
    with, in plain JAX.

    Its gradients and traces are those of the operations in the function, whose site rules the
    library has. The rules that the PyPI package braintrace asks for are taken, so that a program
    can register them, and are not needed. Where the function hides the weight from the analysis (a
    `custom_jvp`, a loop, a Fourier transform), the report calls the parameter instantaneous:
    `register_site_rule(operator, make)` makes the operator one operation, with that rule.

    >>> import braintrace, jax.numpy as jnp
    >>> operator = braintrace.register_primitive("product", lambda x, w: x @ w)
    >>> operator.register_etp_rules(dt_to_t=lambda f, trace: {"weight": trace["weight"] * f})
    >>> operator.bind(jnp.ones((2, 3)), jnp.ones((3, 4))).shape
    (2, 4)
    """

    __module__ = "braintrace"

    def __init__(self, name: str, impl_fn: Callable[..., jax.Array] | None = None):
        if not isinstance(name, str):
            raise UsageError("Invalid name.", got=described(name), expected="a text")
        super().__init__(name)
        self.rules: dict[str, Callable[..., Any]] = {}
        if impl_fn is not None:
            derive_rules(self, impl_fn)

    def bind(self, *operands: Any, **params: Any) -> Any:
        """The operator's function of its operands."""
        whole = has_site_rule(self)
        return super().bind(*operands, **params) if whole else self.impl(*operands, **params)

    def register_etp_rules(self, **rules: Callable[..., Any] | None) -> None:
        """Take rules by their names; None is left out."""
        known("register_etp_rules", rules, _RULES)
        self.rules |= {n: _function(n, rule) for n, rule in rules.items() if rule is not None}

    def register_dt_to_t(self, fn: Callable[..., Any]) -> None:
        """Take the rule by which a D-RTRL trace moves on."""
        self.register_etp_rules(dt_to_t=fn)

    def register_xy_to_dw(self, fn: Callable[..., Any]) -> None:
        """Take the rule of the weight gradient."""
        self.register_etp_rules(xy_to_dw=fn)

    def register_init_drtrl(self, fn: Callable[..., Any]) -> None:
        """Take the rule of the first D-RTRL trace."""
        self.register_etp_rules(init_drtrl=fn)

    def register_init_pp(self, fn: Callable[..., Any]) -> None:
        """Take the rule of the first pp_prop trace."""
        self.register_etp_rules(init_pp=fn)


def register_primitive(
    name: str,
    impl_fn: Callable[..., jax.Array],
    *,
    batched: bool = False,
    gradient_enabled: bool = False,
    trainable_invars_fn: Callable[..., dict[str, int]] | None = None,
    x_invar_index: int | None = 0,
    y_outvar_index: int = 0,
) -> ETPPrimitive:
    """An operator of one's own, as programs of the PyPI package braintrace register it; here any
    function in JAX does without.

    Args:
        name: its name.
        impl_fn: what it computes, in JAX.
        batched, gradient_enabled, trainable_invars_fn, x_invar_index, y_outvar_index: of no effect:
            the analysis finds the batch, the weights and the data.

    >>> import braintrace, jax.numpy as jnp
    >>> scale = braintrace.register_primitive("scale", lambda x, w: w * x)
    >>> scale.bind(jnp.ones(3), 2.0).tolist()
    [2.0, 2.0, 2.0]
    """
    flag("batched", batched)
    flag("gradient_enabled", gradient_enabled)
    return ETPPrimitive(name, _function("impl_fn", impl_fn))


def _function(name: str, value: Any) -> Callable[..., Any]:
    if not callable(value):
        raise UsageError(f"{name} is not a function.", got=described(value), expected="a function")
    return value
