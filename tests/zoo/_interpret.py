"""Programs that run once, run without XLA: their jaxprs, equation by equation, on NumPy.

Compiling a program of a thousand equations takes a hundred times longer than computing it once on
arrays of a dozen numbers. What is not in the table below is left to the primitive itself.
"""

import functools

import jax
import numpy as np
from jax.extend import core

from braintrace.core._compat import scan_counts, sub_jaxprs


def run_once(function, *args):
    """What `function(*args)` gives, computed on NumPy."""
    return interpreted(function, *args)(*args)


def once(function):
    """`function`, traced at each call and run on NumPy."""
    return functools.partial(run_once, function)


def interpreted(function, *example):
    """The function, traced once for arguments like the example's."""
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*example)
    structure = jax.tree.structure(shape)
    if has_convolution(closed.jaxpr):  # left to JAX as a whole
        return jax.jit(function)

    def run(*args):
        with np.errstate(all="ignore"):
            outs = evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(args))
        return jax.tree.unflatten(structure, outs)

    return run


def has_convolution(jaxpr):
    """Whether a jaxpr, or one inside it, has a convolution."""
    inner = (program for e in jaxpr.eqns for program in sub_jaxprs(e.params))
    return any(e.primitive.name == "conv_general_dilated" for e in jaxpr.eqns) or any(
        has_convolution(program.jaxpr) for program in inner
    )


def evaluate(jaxpr, consts, args):
    """The results of a jaxpr."""
    env = dict(zip(jaxpr.constvars, map(array, consts), strict=True))
    env.update(zip(jaxpr.invars, map(array, args), strict=True))
    for eqn in jaxpr.eqns:
        inputs = [
            array(v.val, v.aval.dtype) if isinstance(v, core.Literal) else env[v]
            for v in eqn.invars
        ]
        name = eqn.primitive.name
        if (elementwise := ELEMENTWISE.get(name)) is not None:
            outs = [array(elementwise(*inputs), eqn.outvars[0].aval.dtype)]
        elif (rule := RULES.get(name)) is not None and not any(map(is_key, inputs)):
            outs = [rule(eqn, *inputs)]
        elif (loop := LOOPS.get(name)) is not None:
            outs = loop(eqn.params, inputs)
        else:
            outs = other(eqn, inputs)
        env.update(zip(eqn.outvars, outs, strict=True))
    return [
        array(v.val, v.aval.dtype) if isinstance(v, core.Literal) else env[v] for v in jaxpr.outvars
    ]


def array(value, dtype=None):
    """A NumPy array; a PRNG key stays what it is."""
    if is_key(value):
        return value
    return np.asarray(value, dtype)


def is_key(value):
    dtype = getattr(value, "dtype", None)
    return dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def closed(jaxpr, inputs):
    """The results of a jaxpr in an equation's parameters."""
    if isinstance(jaxpr, core.ClosedJaxpr):
        return evaluate(jaxpr.jaxpr, jaxpr.consts, inputs)
    return evaluate(jaxpr, (), inputs)


def other(eqn, inputs):
    """A call is opened; any other primitive computes itself."""
    for name in ("call_jaxpr", "jaxpr", "fun_jaxpr"):
        if name in eqn.params and eqn.primitive.name != "reduce":
            return closed(eqn.params[name], inputs)
    outs = eqn.primitive.bind(*inputs, **eqn.params)
    return [array(v) for v in (outs if eqn.primitive.multiple_results else [outs])]


def scan(params, inputs):
    """The loop of lax.scan."""
    consts, carried = scan_counts(params)
    fixed, carry = inputs[:consts], inputs[consts : consts + carried]
    xs, length = inputs[consts + carried :], params["length"]
    steps = reversed(range(length)) if params["reverse"] else range(length)
    rows = {}
    for t in steps:
        outs = closed(params["jaxpr"], [*fixed, *carry, *(x[t] for x in xs)])
        carry, rows[t] = outs[:carried], outs[carried:]
    stacked = [stack(column) for column in zip(*(rows[t] for t in range(length)), strict=True)]
    if not length:
        raise NotImplementedError("a scan of no steps")
    return [*carry, *stacked]


def stack(column):
    return jax.numpy.stack(column) if is_key(column[0]) else np.stack(column)


def cond(params, inputs):
    """The branch that is taken; lax.cond's index is clamped."""
    index, *operands = inputs
    branches = params["branches"]
    return closed(branches[min(max(int(index), 0), len(branches) - 1)], operands)


def loop(params, inputs):
    """The loop of lax.while_loop."""
    tests, bodies = params["cond_nconsts"], params["body_nconsts"]
    of_test, of_body = inputs[:tests], inputs[tests : tests + bodies]
    carry = inputs[tests + bodies :]
    while bool(closed(params["cond_jaxpr"], [*of_test, *carry])[0]):
        carry = closed(params["body_jaxpr"], [*of_body, *carry])
    return carry


def dot_general(eqn, a, b):
    (left, right), (batch, like) = eqn.params["dimension_numbers"]
    letters = iter(range(52))
    of_a = [next(letters) for _ in a.shape]
    of_b = [None] * b.ndim
    for i, j in (*zip(left, right, strict=True), *zip(batch, like, strict=True)):
        of_b[j] = of_a[i]
    of_b = [next(letters) if v is None else v for v in of_b]
    kept = [
        *(of_a[i] for i in batch),
        *(v for i, v in enumerate(of_a) if i not in (*left, *batch)),
        *(v for j, v in enumerate(of_b) if j not in (*right, *like)),
    ]
    return np.einsum(a, of_a, b, of_b, kept).astype(eqn.outvars[0].aval.dtype)


def broadcast_in_dim(eqn, operand, *_):
    shape, where = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    widened = [1] * len(shape)
    for k, n in zip(where, operand.shape, strict=True):
        widened[k] = n
    return np.broadcast_to(operand.reshape(widened), shape)


def pad(eqn, operand, value):
    config = eqn.params["padding_config"]
    if any(low < 0 or high < 0 or inner for low, high, inner in config):
        return np.asarray(eqn.primitive.bind(operand, value, **eqn.params))
    return np.pad(operand, [c[:2] for c in config], constant_values=value)


def cut(eqn, operand):
    p = eqn.params
    strides = p["strides"] or (1,) * operand.ndim
    bounds = zip(p["start_indices"], p["limit_indices"], strides, strict=True)
    return operand[tuple(slice(*b) for b in bounds)]


def starts(shape, sizes, given):
    """Start indices of a dynamic slice, clamped."""
    return tuple(
        slice(k := min(max(int(i), 0), n - m), k + m)
        for n, m, i in zip(shape, sizes, given, strict=True)
    )


def dynamic_slice(eqn, operand, *given):
    return operand[starts(operand.shape, eqn.params["slice_sizes"], given)]


def dynamic_update_slice(eqn, operand, update, *given):
    new = operand.copy()
    new[starts(operand.shape, update.shape, given)] = update
    return new


def convert(eqn, v):
    """A complex number that becomes a real one loses its imaginary part without a warning."""
    dtype = eqn.params["new_dtype"]
    to_real = np.iscomplexobj(v) and not np.issubdtype(dtype, np.complexfloating)
    return (v.real if to_real else v).astype(dtype)


def iota(eqn):
    p = eqn.params
    shape = [-1 if k == p["dimension"] else 1 for k in range(len(p["shape"]))]
    counted = np.arange(p["shape"][p["dimension"]], dtype=p["dtype"]).reshape(shape)
    return np.broadcast_to(counted, p["shape"])


def select(which, *cases):
    return np.choose(which, cases, mode="clip") if len(cases) > 2 else np.where(which, *cases[::-1])


def reduced(function):
    return lambda eqn, v: np.asarray(
        function(v, axis=tuple(eqn.params["axes"])), eqn.outvars[0].aval.dtype
    )


def with_param(function, name):
    return lambda eqn, v: function(v, eqn.params[name])


def identity(v, *_):
    return v


ELEMENTWISE = {
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "sqrt": np.sqrt,
    "rsqrt": lambda v: 1 / np.sqrt(v),
    "square": np.square,
    "logistic": lambda v: 1 / (1 + np.exp(-v)),
    "pow": np.power,
    "max": np.maximum,
    "min": np.minimum,
    "abs": np.abs,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "real": np.real,
    "imag": np.imag,
    "conj": np.conj,
    "complex": lambda a, b: a + 1j * b,
    "is_finite": np.isfinite,
    "select_n": select,
    "stop_gradient": identity,
    "copy": identity,
}

RULES = {
    "div": lambda eqn, a, b: (
        np.divide(a, b)
        if np.issubdtype(eqn.outvars[0].aval.dtype, np.inexact)
        else np.asarray(eqn.primitive.bind(a, b, **eqn.params))
    ),
    "convert_element_type": convert,
    "integer_pow": with_param(lambda v, y: v ** np.asarray(float(y), v.real.dtype), "y"),
    "broadcast_in_dim": broadcast_in_dim,
    "reshape": with_param(np.reshape, "new_sizes"),
    "squeeze": with_param(np.squeeze, "dimensions"),
    "expand_dims": with_param(np.expand_dims, "dimensions"),
    "transpose": with_param(np.transpose, "permutation"),
    "concatenate": lambda eqn, *vs: np.concatenate(vs, eqn.params["dimension"]),
    "rev": with_param(np.flip, "dimensions"),
    "slice": cut,
    "dynamic_slice": dynamic_slice,
    "dynamic_update_slice": dynamic_update_slice,
    "pad": pad,
    "iota": iota,
    "dot_general": dot_general,
    "reduce_sum": reduced(np.sum),
    "reduce_max": reduced(np.max),
    "reduce_and": reduced(np.all),
    "reduce_or": reduced(np.any),
}

LOOPS = {"scan": scan, "cond": cond, "while": loop}
