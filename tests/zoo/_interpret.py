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
    program = Program(closed)

    def run(*args):
        with np.errstate(all="ignore"):
            outs = program([array(v) for v in jax.tree.leaves(args)])
        return jax.tree.unflatten(structure, outs)

    return run


def has_convolution(jaxpr):
    """Whether a jaxpr, or one inside it, has a convolution."""
    inner = (program for e in jaxpr.eqns for program in sub_jaxprs(e.params))
    return any(e.primitive.name == "conv_general_dilated" for e in jaxpr.eqns) or any(
        has_convolution(program.jaxpr) for program in inner
    )


class Program:
    """A jaxpr as a list of functions of NumPy arrays, with the places of their operands and
    results; what an equation is made of is looked up once, for loops run it many times.
    """

    def __init__(self, jaxpr):
        consts = jaxpr.consts if isinstance(jaxpr, core.ClosedJaxpr) else ()
        jaxpr = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
        self.values, self.places = [], {}
        for var, value in zip(jaxpr.constvars, consts, strict=True):
            self.places[var] = self.keep(array(value))
        self.ins = [self.place(v) for v in jaxpr.invars]
        self.steps = []
        for eqn in jaxpr.eqns:
            operands = [self.place(v) for v in eqn.invars]
            self.steps.append((operation(eqn), operands, [self.place(v) for v in eqn.outvars]))
        self.outs = [self.place(v) for v in jaxpr.outvars]

    def keep(self, value):
        self.values.append(value)
        return len(self.values) - 1

    def place(self, var):
        if isinstance(var, core.Literal):
            return self.keep(array(var.val, var.aval.dtype))
        if var not in self.places:
            self.places[var] = self.keep(None)
        return self.places[var]

    def __call__(self, args):
        values = self.values.copy()
        for place, value in zip(self.ins, args, strict=True):
            values[place] = value
        for function, operands, results in self.steps:
            outs = function([values[k] for k in operands])
            for place, value in zip(results, outs, strict=True):
                values[place] = value
        return [values[k] for k in self.outs]


def operation(eqn):
    """An equation as a function from its operands to its results."""
    name = eqn.primitive.name
    if (elementwise := ELEMENTWISE.get(name)) is not None:
        dtype = eqn.outvars[0].aval.dtype
        return lambda inputs: (array(elementwise(*inputs), dtype),)
    if (rule := RULES.get(name)) is not None and not any(is_key(v.aval) for v in eqn.invars):
        return lambda inputs: (rule(eqn, *inputs),)
    if (loop := LOOPS.get(name)) is not None:
        return loop(eqn.params)
    return other(eqn)


def array(value, dtype=None):
    """A NumPy array; a PRNG key stays what it is."""
    if isinstance(value, jax.Array) and is_key(value):
        return value
    return np.asarray(value, dtype)


def is_key(value):
    dtype = getattr(value, "dtype", None)
    return dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def other(eqn):
    """A call is opened; any other primitive computes itself."""
    for name in ("call_jaxpr", "jaxpr", "fun_jaxpr"):
        if name in eqn.params and eqn.primitive.name != "reduce":
            return Program(eqn.params[name])

    def compute(inputs):
        outs = eqn.primitive.bind(*inputs, **eqn.params)
        return [array(v) for v in (outs if eqn.primitive.multiple_results else [outs])]

    return compute


def scan(params):
    """The loop of lax.scan."""
    consts, carried = scan_counts(params)
    length, body = params["length"], Program(params["jaxpr"])
    if not length:
        raise NotImplementedError("a scan of no steps")

    def run(inputs):
        fixed, carry = inputs[:consts], inputs[consts : consts + carried]
        xs, rows = inputs[consts + carried :], {}
        for t in reversed(range(length)) if params["reverse"] else range(length):
            outs = body([*fixed, *carry, *(x[t] for x in xs)])
            carry, rows[t] = outs[:carried], outs[carried:]
        columns = zip(*(rows[t] for t in range(length)), strict=True)
        return [*carry, *map(stack, columns)]

    return run


def stack(column):
    return jax.numpy.stack(column) if is_key(column[0]) else np.stack(column)


def cond(params):
    """The branch that is taken; lax.cond's index is clamped."""
    branches = [Program(branch) for branch in params["branches"]]
    return lambda inputs: branches[min(max(int(inputs[0]), 0), len(branches) - 1)](inputs[1:])


def loop(params):
    """The loop of lax.while_loop."""
    tests, bodies = params["cond_nconsts"], params["body_nconsts"]
    test, body = Program(params["cond_jaxpr"]), Program(params["body_jaxpr"])

    def run(inputs):
        of_test, of_body = inputs[:tests], inputs[tests : tests + bodies]
        carry = inputs[tests + bodies :]
        while bool(test([*of_test, *carry])[0]):
            carry = body([*of_body, *carry])
        return carry

    return run


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
