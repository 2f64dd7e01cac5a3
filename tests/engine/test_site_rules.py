"""Site rules against the operations' own weight gradients, as JAX computes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, mlir

from braintrace.checks import check_site_rule
from braintrace.core.jaxpr import ControlFlowPolicy, stage
from braintrace.core.sites import ScaleRule, SiteRule, site_rule

from . import sparse_products

#: brainevent's own index arithmetic, with 64-bit numbers
pytestmark = pytest.mark.filterwarnings(
    "ignore:scatter inputs have incompatible types:FutureWarning"
)
RANDOM = np.random.default_rng(3)


def normal(*shape):
    return jnp.asarray(RANDOM.standard_normal(shape))


def einsum(subscripts):
    return lambda w, x: jnp.einsum(subscripts, w, x)


PRODUCTS = {
    "dense": (lambda w, x: x @ w, normal(3, 4), normal(2, 3)),
    "dense, one sample": (lambda w, x: x @ w, normal(3, 4), normal(3)),
    "dense, weight first": (lambda w, x: w @ x, normal(4, 3), normal(3, 2)),
    "dense, transposed": (lambda w, x: x @ w.T, normal(4, 3), normal(2, 3)),
    "vector": (lambda w, x: x @ w, normal(3), normal(2, 3)),
    "batched": (einsum("gio,gbi->gbo"), normal(5, 3, 4), normal(5, 2, 3)),
    "grouped": (einsum("gio,bgi->bgo"), normal(5, 3, 4), normal(2, 5, 3)),
    "shared over positions": (einsum("io,bti->bto"), normal(3, 4), normal(2, 5, 3)),
    "two contractions": (einsum("ijo,bij->bo"), normal(3, 2, 4), normal(2, 3, 2)),
    "two free axes": (einsum("ipq,bi->bpq"), normal(3, 2, 4), normal(2, 3)),
    "contraction in the middle": (einsum("oip,bti->botp"), normal(4, 3, 2), normal(2, 5, 3)),
    "no contraction": (einsum("o,b->bo"), normal(4), normal(2)),
    "diagonal": (einsum("g,bg->bg"), normal(5), normal(2, 5)),
    "outer by group": (einsum("go,bg->bgo"), normal(5, 4), normal(2, 5)),
    "to a scalar": (lambda w, x: jnp.dot(w, x), normal(3), normal(3)),
    "two batch axes": (einsum("ghio,bghi->bgho"), normal(2, 3, 3, 4), normal(2, 2, 3, 3)),
    "float32": (
        lambda w, x: x @ w,
        normal(3, 4).astype(jnp.float32),
        normal(2, 3).astype(jnp.float32),
    ),
}


def conv(ndim, layout=None, **options):
    options = {"window_strides": (1,) * ndim, "padding": "SAME"} | options
    return lambda w, x: lax.conv_general_dilated(x, w, **options, dimension_numbers=layout)


CONVOLUTIONS = {
    "1d": (conv(1), normal(4, 3, 3), normal(2, 3, 7)),
    "1d, channels last": (conv(1, ("NWC", "WIO", "NWC")), normal(3, 3, 4), normal(2, 7, 3)),
    "1d, mixed layout": (conv(1, ("WNC", "OWI", "CWN")), normal(4, 3, 3), normal(7, 2, 3)),
    "1d, stride": (conv(1, window_strides=(2,)), normal(4, 3, 3), normal(2, 3, 7)),
    "1d, valid": (conv(1, padding="VALID"), normal(4, 3, 3), normal(2, 3, 7)),
    "1d, uneven padding": (conv(1, padding=[(3, 1)]), normal(4, 3, 3), normal(2, 3, 7)),
    "1d, negative padding": (conv(1, padding=[(-1, 2)]), normal(4, 3, 3), normal(2, 3, 7)),
    "1d, input dilation": (
        conv(1, padding=[(2, 1)], lhs_dilation=(2,)),
        normal(4, 3, 3),
        normal(2, 3, 5),
    ),
    "1d, kernel dilation": (conv(1, rhs_dilation=(2,)), normal(4, 3, 3), normal(2, 3, 7)),
    "1d, groups": (conv(1, feature_group_count=2), normal(6, 2, 3), normal(2, 4, 7)),
    "1d, depthwise": (conv(1, feature_group_count=4), normal(4, 1, 3), normal(2, 4, 7)),
    "1d, depthwise with multiplier": (
        conv(1, feature_group_count=2),
        normal(6, 1, 3),
        normal(2, 2, 7),
    ),
    "2d": (conv(2), normal(4, 3, 3, 2), normal(2, 3, 5, 4)),
    "2d, channels last": (
        conv(2, ("NHWC", "HWIO", "NHWC")),
        normal(3, 2, 3, 4),
        normal(2, 5, 4, 3),
    ),
    "2d, everything": (
        conv(
            2,
            ("NHWC", "HWIO", "NHWC"),
            window_strides=(2, 1),
            padding=[(2, 1), (0, 3)],
            lhs_dilation=(1, 2),
            rhs_dilation=(2, 1),
            feature_group_count=2,
        ),
        normal(3, 2, 2, 6),
        normal(2, 5, 4, 4),
    ),
    "3d": (conv(3, padding="VALID"), normal(2, 2, 2, 2, 3), normal(2, 2, 3, 4, 3)),
    "3d, stride and groups": (
        conv(3, window_strides=(1, 2, 1), feature_group_count=2),
        normal(4, 1, 2, 2, 2),
        normal(2, 2, 3, 4, 3),
    ),
}

TABLE = normal(5, 3)
OUTSIDE = jnp.array([[0, 7], [4, -9], [5, 2]])
GATHERS = {
    "vector of indices": (lambda w, i: w[i], TABLE, jnp.array([3, 0, 3])),
    "one index": (lambda w, i: w[i], TABLE, jnp.array(2)),
    "matrix of indices": (lambda w, i: w[i], TABLE, jnp.array([[3, 0, 3], [1, 1, 4]])),
    "negative indices": (lambda w, i: w[i], TABLE, jnp.array([-1, 0, -5])),
    "table of vectors of matrices": (lambda w, i: w[i], normal(5, 2, 3), jnp.array([3, 0, 3])),
    "table of values": (lambda w, i: w[i], normal(5), jnp.array([3, 0, 3])),
    "take, axis 0": (lambda w, i: jnp.take(w, i, axis=0), TABLE, jnp.array([[3, 0], [1, 1]])),
    "take, axis 1": (lambda w, i: jnp.take(w, i, axis=1), TABLE, jnp.array([[2, 0], [1, 1]])),
    "take, last axis of three": (
        lambda w, i: jnp.take(w, i, axis=-1),
        normal(2, 3, 4),
        jnp.array([3, 0, 3]),
    ),
    "outside, fill": (lambda w, i: w.at[i].get(mode="fill", fill_value=0), TABLE, OUTSIDE),
    "outside, clip": (lambda w, i: w.at[i].get(mode="clip"), TABLE, OUTSIDE),
    "outside, take fill": (
        lambda w, i: jnp.take(w, i, axis=1, mode="fill", fill_value=0),
        TABLE,
        OUTSIDE,
    ),
    "outside, take clip": (lambda w, i: jnp.take(w, i, axis=1, mode="clip"), TABLE, OUTSIDE),
    "outside, wrap": (lambda w, i: jnp.take(w, i, axis=0, mode="wrap"), TABLE, OUTSIDE),
    "int8 indices": (lambda w, i: w[i], TABLE, jnp.array([3, 0, 3], jnp.int8)),
    "uint32 indices": (lambda w, i: w[i], TABLE, jnp.array([3, 0, 3], jnp.uint32)),
}
EVERY = PRODUCTS | CONVOLUTIONS | GATHERS | sparse_products.SPARSE


@pytest.mark.parametrize("name", EVERY)
def test_rule(name):
    check_site_rule(*EVERY[name])


class Wrong:
    """A rule with one method changed."""

    def __init__(self, rule, name, change):
        self._rule, self._name, self._change = rule, name, change

    def __getattr__(self, name):
        found = getattr(self._rule, name)
        if name != self._name:
            return found
        return (
            (lambda *given: self._change(found(*given))) if callable(found) else self._change(found)
        )


CHANGES = {
    "collect": lambda v: 2 * v,
    "spread": lambda v: jnp.roll(v, 1, axis=0),
    "weight_gradient": lambda v: v.at[(0,) * v.ndim].add(1),
    "weight_gradient_sum": lambda v: v / 3,
    "spread_sum": lambda v: v / 3,
    "data_gradient_sum": lambda v: v / 3,
    "at_entries": lambda v: v + 1,
    "trace_shape": lambda shape: (*shape, 1),
    "lane_axis": lambda axis: None if axis is None else axis + 1,
}
CONTROLS = [
    "shared over positions",
    "2d, everything",
    "matrix of indices",
    "BCOO: X @ M",
    "brainevent.CSC, homogeneous: X @ M",
]


@pytest.mark.parametrize("method", CHANGES)
@pytest.mark.parametrize("name", CONTROLS)
def test_a_wrong_rule_is_caught(name, method):
    def make(equation, operand):
        rule = site_rule(equation, operand)
        return None if rule is None else Wrong(rule, method, CHANGES[method])

    with pytest.raises((AssertionError, IndexError, ValueError, TypeError)):
        check_site_rule(*EVERY[name], make=make)


# A rule of the user's, for an operation with an operand that is neither weight nor data
# -----------------------------------

spaced_p = Primitive("spaced")
spaced_p.def_impl(lambda w, x, space: x @ w)
spaced_p.def_abstract_eval(lambda w, x, space: ShapedArray((x.shape[0], w.shape[1]), x.dtype))
mlir.register_lowering(spaced_p, mlir.lower_fun(lambda w, x, space: x @ w, multiple_results=False))
ad.primitive_jvps[spaced_p] = lambda values, moves: jax.jvp(
    lambda w, x: x @ w, values[:2], tuple(map(ad.instantiate_zeros, moves[:2]))
)


class Spaced(SiteRule):
    """`y = x W`, with a work space as third operand."""

    @property
    def data(self):
        return (1,)

    def contraction(self):
        return self.equation.inputs[self.operand].shape[:1]

    def spread(self, f, data):
        return f[..., None] * data[0][:, None, :]

    def collect(self, entries):
        return entries.sum(0).T

    def lane_axis(self, axis):
        return 0 if axis == 0 else None

    def weight_gradient(self, x, c):
        return x.T @ c

    def weight_gradient_sum(self, x, c):
        return jnp.einsum("tbi,tbo->io", x, c)


def test_a_rule_with_an_operand_beside_weight_and_data():
    operation = lambda w, x: spaced_p.bind(w, x, jnp.zeros(7))
    rule = check_site_rule(
        operation, normal(3, 4), normal(2, 3), make=lambda e, k: Spaced(e, k) if k == 0 else None
    )
    x, c = normal(5, 2, 3), normal(5, 2, 4)
    wanted = jax.grad(lambda w: jnp.vdot(x @ w, c))(normal(3, 4))
    np.testing.assert_allclose(rule.data_gradient_sum([x], c, normal(3, 4)), wanted, rtol=1e-12)

    class Doubled(Spaced):
        def weight_gradient_sum(self, x, c):
            return 2 * super().weight_gradient_sum(x, c)

    with pytest.raises(AssertionError, match="data_gradient_sum is the sum"):
        check_site_rule(
            operation,
            normal(3, 4),
            normal(2, 3),
            make=lambda e, k: Doubled(e, k) if k == 0 else None,
        )


@pytest.mark.parametrize("name", sparse_products.BY_DENSE)
def test_sparse_products_whose_own_derivative_is_wrong_or_missing(name):
    """By the product with the dense matrix: JAX's `csr_matvec` of a transpose, and `vmap` of a BCOO
    product.
    """
    operation, stored, x, matrix = sparse_products.BY_DENSE[name]
    closed = jax.make_jaxpr(operation)(stored, x)
    program, _ = stage(lambda *v: [operation(*v)], [stored, x], [True, True], ControlFlowPolicy())
    (equation,) = [e for e in program.equations if site_rule(e, 0) is not None]
    rule, y = site_rule(equation, 0), equation.outputs[0]
    assert rule is not None and closed.out_avals[0].size == y.size
    f = normal(*y.shape)
    inner, outer = (v.shape for v in (equation.inputs[rule.data[0]], x))
    turn = lambda v, a, b: v if a == b else v.T
    wanted = jax.grad(
        lambda w: jnp.vdot(x @ matrix(w), turn(f, y.shape, closed.out_avals[0].shape))
    )(stored)
    data = [turn(x, outer, inner)]
    np.testing.assert_allclose(
        rule.collect(rule.spread(f, data)).reshape(wanted.shape), wanted, rtol=1e-12
    )
    np.testing.assert_allclose(
        rule.weight_gradient(data[0], f).reshape(wanted.shape), wanted, rtol=1e-12
    )


@pytest.mark.parametrize("name", EVERY)
def test_a_wrong_sum_is_caught_everywhere(name):
    """Control for every operation: a rule that is 1 % off."""

    def make(equation, operand):
        rule = site_rule(equation, operand)
        return None if rule is None else Wrong(rule, "collect", lambda v: 1.01 * v)

    with pytest.raises(AssertionError, match="weight gradient"):
        check_site_rule(*EVERY[name], make=make)


def test_a_constant_index_is_no_site_of_a_row():
    """A row cut at a constant place is data movement: part of the prelude."""
    with pytest.raises(ValueError, match="No site rule"):
        check_site_rule(lambda w, x: w[2] * x, TABLE, normal(3))


def test_a_product_element_by_element():
    """The middle of a sparse product that is written out: the analysis gives it this rule where x
    is data.
    """
    make = lambda e, k: ScaleRule(e, k) if e.name == "mul" else None
    assert check_site_rule(jnp.multiply, normal(3, 4), normal(3, 4), make=make).trace_shape == (
        3,
        4,
    )
    wrong = lambda e, k: Wrong(make(e, k), "collect", lambda v: 2 * v)
    with pytest.raises(AssertionError):
        check_site_rule(jnp.multiply, normal(3, 4), normal(3, 4), make=wrong)


def test_the_weight_may_be_any_operand():
    rule = check_site_rule(lambda x, w: x @ w, normal(2, 3), normal(3, 4), weight=1)
    assert rule.contraction() == (3,)


def test_an_operation_without_a_rule_says_so():
    with pytest.raises(ValueError, match="No site rule covers this operation"):
        check_site_rule(lambda w, x: jax.nn.relu(w) * x, normal(3), normal(3))
