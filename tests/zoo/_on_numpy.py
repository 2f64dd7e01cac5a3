"""What JAX's primitives compute, on NumPy: from an equation to a function of its operands."""

import jax
import numpy as np
from jax.lax import GatherScatterMode


def is_key(value):
    dtype = getattr(value, "dtype", None)
    if dtype is None or isinstance(dtype, np.dtype):
        return False
    return jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def itself(eqn):
    """The primitive."""
    return lambda *operands: np.asarray(eqn.primitive.bind(*operands, **eqn.params))


def dot_general(eqn):
    (left, right), (batch, like) = eqn.params["dimension_numbers"]
    a, b = (v.aval.ndim for v in eqn.invars)
    of_a, of_b, dtype = [*range(a)], [*range(a, a + b)], eqn.outvars[0].aval.dtype
    for i, j in (*zip(left, right, strict=True), *zip(batch, like, strict=True)):
        of_b[j] = of_a[i]
    kept = [
        *(of_a[i] for i in batch),
        *(v for i, v in enumerate(of_a) if i not in (*left, *batch)),
        *(v for j, v in enumerate(of_b) if j not in (*right, *like)),
    ]
    return lambda a, b: np.einsum(a, of_a, b, of_b, kept).astype(dtype)


def convolution(eqn):
    """Windows of the padded data contracted with the kernel, in groups of samples or of
    features.
    """
    p, dtype = eqn.params, eqn.outvars[0].aval.dtype
    numbers, back = p["dimension_numbers"], np.argsort(p["dimension_numbers"].out_spec)
    samples, features = p["batch_group_count"], p["feature_group_count"]
    every = (slice(None),) * 2
    strides = (*every, *(slice(None, None, k) for k in p["window_strides"]))

    def dilated(v, factors):
        sizes = [max((n - 1) * k + 1, 0) for n, k in zip(v.shape[2:], factors, strict=True)]
        wide = np.zeros((*v.shape[:2], *sizes), v.dtype)
        wide[(*every, *(slice(None, None, k) for k in factors))] = v
        return wide

    def run(data, kernel):
        data = padded(
            dilated(data.transpose(numbers.lhs_spec), p["lhs_dilation"]),
            [(0, 0), (0, 0), *p["padding"]],
        )
        kernel = dilated(kernel.transpose(numbers.rhs_spec), p["rhs_dilation"])
        axes = tuple(range(2, data.ndim))
        windows = np.lib.stride_tricks.sliding_window_view(data, kernel.shape[2:], axes)[strides]
        (B, C, *places), (O, _, *inside) = windows.shape, kernel.shape
        windows = windows.reshape(samples, B // samples, features, C // features, *places)
        kernel = kernel.reshape(samples, features, O // (samples * features), -1, *inside)
        k, b, g, c, o, *space = range(5 + len(places))
        where, of_kernel = space[: len(axes)], space[len(axes) :]
        found = np.einsum(
            *(windows, [k, b, g, c, *space], kernel, [k, g, o, c, *of_kernel]), [b, k, g, o, *where]
        )
        return found.reshape(B // samples, O, *found.shape[4:]).transpose(back).astype(dtype)

    return run


def reshape(eqn):
    order, sizes = eqn.params["dimensions"], eqn.params["new_sizes"]
    return lambda v, *_: (v if order is None else v.transpose(order)).reshape(sizes)


def padded(v, config, value=0):
    """With `value` before and after each axis, or with less where a number is negative."""
    wide = np.pad(v, [(max(a, 0), max(b, 0)) for a, b in config], constant_values=value)
    cut = ((max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(wide.shape, config, strict=True))
    return wide[tuple(slice(*bounds) for bounds in cut)]


def pad(eqn):
    config = eqn.params["padding_config"]
    if any(inner for _, _, inner in config):
        return itself(eqn)
    return lambda operand, value: padded(operand, [c[:2] for c in config], value)


def broadcast_in_dim(eqn):
    shape, widened = eqn.params["shape"], [1] * len(eqn.params["shape"])
    for k, n in zip(eqn.params["broadcast_dimensions"], eqn.invars[0].aval.shape, strict=True):
        widened[k] = n
    dtype = eqn.outvars[0].aval.dtype

    def run(operand, *_):
        out = np.empty(shape, dtype)
        out[...] = operand.reshape(widened)
        return out

    return run


def cut(eqn):
    p = eqn.params
    strides = p["strides"] or (1,) * len(p["start_indices"])
    bounds = zip(p["start_indices"], p["limit_indices"], strides, strict=True)
    where = tuple(slice(*b) for b in bounds)
    return lambda operand: operand[where]


def starts(shape, sizes, given):
    """Start indices of a dynamic slice, clamped."""
    return tuple(
        slice(k := min(max(int(i), 0), n - m), k + m)
        for n, m, i in zip(shape, sizes, given, strict=True)
    )


def dynamic_slice(eqn):
    sizes = eqn.params["slice_sizes"]
    return lambda operand, *given: operand[starts(operand.shape, sizes, given)]


def dynamic_update_slice(eqn):
    def run(operand, update, *given):
        new = operand.copy()
        new[starts(operand.shape, update.shape, given)] = update
        return new

    return run


def windows(shape, indices, sizes, starting, dropped, batching):
    """Indices (*batch, *window) for each axis of an array, of windows of these sizes that begin
    where `indices` (*batch, axes of `starting`) say, clamped; and which windows need not be.

    `dropped`: the axes that a window does not have; `batching`: to axes of the array, those of the
    batch that run along with them.
    """
    batch, kept = indices.shape[:-1], [d for d in range(len(shape)) if d not in dropped]
    there, flat = np.ones(batch, bool), (1,) * len(kept)
    where = []
    for d, (n, size) in enumerate(zip(shape, sizes, strict=True)):
        first = np.zeros((1,) * len(batch), int)
        if d in starting:
            first = indices[..., starting.index(d)].astype(int)
            there &= (first >= 0) & (first <= n - size)
            first = first.clip(0, n - size)
        elif d in batching:
            first = np.arange(n).reshape([-1 if k == batching[d] else 1 for k in range(len(batch))])
        along = np.arange(size).reshape([-1 if k == d else 1 for k in kept])
        where.append(np.reshape(first, (*np.shape(first), *flat)) + along)
    return tuple(where), np.reshape(there, (*batch, *flat))


def gather(eqn):
    p, out = eqn.params, eqn.outvars[0].aval
    of, fill = p["dimension_numbers"], p["fill_value"]
    pairs = zip(of.operand_batching_dims, of.start_indices_batching_dims, strict=True)
    dropped, batching = {*of.collapsed_slice_dims, *of.operand_batching_dims}, dict(pairs)
    if p["mode"] != GatherScatterMode.FILL_OR_DROP:
        fill = None
    elif fill is None:
        is_float = np.issubdtype(out.dtype, np.inexact)
        fill = np.nan if is_float else True if out.dtype == bool else lowest(out.dtype)

    def run(operand, indices):
        of_axes = (p["slice_sizes"], of.start_index_map, dropped, batching)
        where, there = windows(operand.shape, indices, *of_axes)
        found = operand[where] if fill is None else np.where(there, operand[where], fill)
        last = range(found.ndim - len(of.offset_dims), found.ndim)
        return np.moveaxis(found, last, of.offset_dims).astype(out.dtype)

    return run


def lowest(dtype):
    bounds = np.iinfo(dtype)
    return bounds.min or bounds.max


def scatter(put):
    """Of `put(array, where, updates)`, in place."""

    def rule(eqn):
        p, of = eqn.params, eqn.params["dimension_numbers"]
        pairs = zip(of.operand_batching_dims, of.scatter_indices_batching_dims, strict=True)
        dropped, batching = {*of.inserted_window_dims, *of.operand_batching_dims}, dict(pairs)

        def run(operand, indices, updates):
            own = of.update_window_dims
            updates = np.moveaxis(updates, own, range(updates.ndim - len(own), updates.ndim))
            inner = iter(updates.shape[updates.ndim - len(own) :])
            sizes = [1 if d in dropped else next(inner) for d in range(operand.ndim)]
            of_axes = (sizes, of.scatter_dims_to_operand_dims, dropped, batching)
            where, there = windows(operand.shape, indices, *of_axes)
            new = operand.copy()
            if p["mode"] == GatherScatterMode.FILL_OR_DROP and not there.all():
                there = np.broadcast_to(there, updates.shape)
                where = tuple(np.broadcast_to(w, updates.shape)[there] for w in where)
                updates = updates[there]
            put(new, where, updates)
            return new

        return run

    return rule


def split(eqn):
    ends = np.cumsum(eqn.params["sizes"])[:-1]
    return lambda v: np.split(v, ends, eqn.params["axis"])


def unstack(eqn):
    return lambda v: list(np.moveaxis(v, eqn.params["axis"], 0))


def reduce_precision(eqn):
    of = jax.numpy.finfo(eqn.outvars[0].aval.dtype)
    kept = eqn.params["exponent_bits"] >= of.nexp and eqn.params["mantissa_bits"] >= of.nmant
    return identity if kept else itself(eqn)


def convert(eqn):
    """A complex number that becomes a real one loses its imaginary part without a warning."""
    dtype = eqn.params["new_dtype"]
    to_real = jax.numpy.iscomplexobj(eqn.invars[0].aval) and not np.issubdtype(
        dtype, np.complexfloating
    )
    return lambda v: (v.real if to_real else v).astype(dtype)


def iota(eqn):
    p = eqn.params
    shape = [-1 if k == p["dimension"] else 1 for k in range(len(p["shape"]))]
    counted = np.arange(p["shape"][p["dimension"]], dtype=p["dtype"]).reshape(shape)
    return lambda *_: np.broadcast_to(counted, p["shape"])


def div(eqn):
    return np.divide if np.issubdtype(eqn.outvars[0].aval.dtype, np.inexact) else itself(eqn)


def integer_pow(eqn):
    return lambda v: v ** np.asarray(float(eqn.params["y"]), v.real.dtype)


def select(which, *cases):
    return np.choose(which, cases, mode="clip") if len(cases) > 2 else np.where(which, *cases[::-1])


def reduced(function):
    def rule(eqn):
        axes, dtype = tuple(eqn.params["axes"]), eqn.outvars[0].aval.dtype
        return lambda v: np.asarray(function(v, axis=axes), dtype)

    return rule


def with_param(function, name):
    def rule(eqn):
        value = eqn.params[name]
        return lambda v, *_: function(v, value)

    return rule


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
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "real": np.real,
    "imag": np.imag,
    "conj": lambda v, **_: np.conj(v),
    "complex": lambda a, b: a + 1j * b,
    "is_finite": np.isfinite,
    "select_n": select,
    "stop_gradient": identity,
    "copy": identity,
}

#: Of one result.
RULES = {
    "div": div,
    "convert_element_type": convert,
    "integer_pow": integer_pow,
    "broadcast_in_dim": broadcast_in_dim,
    "reshape": reshape,
    "squeeze": with_param(np.squeeze, "dimensions"),
    "expand_dims": with_param(np.expand_dims, "dimensions"),
    "transpose": with_param(np.transpose, "permutation"),
    "concatenate": lambda eqn: lambda *vs: np.concatenate(vs, eqn.params["dimension"]),
    "stack": lambda eqn: lambda *vs: np.stack(vs, eqn.params["axis"]),
    "rev": with_param(np.flip, "dimensions"),
    "slice": cut,
    "dynamic_slice": dynamic_slice,
    "dynamic_update_slice": dynamic_update_slice,
    "gather": gather,
    "scatter": scatter(np.ndarray.__setitem__),
    "scatter-add": scatter(np.add.at),
    "pad": pad,
    "iota": iota,
    "dot_general": dot_general,
    "conv_general_dilated": convolution,
    "reduce_precision": reduce_precision,
    "reduce_sum": reduced(np.sum),
    "reduce_max": reduced(np.max),
    "reduce_and": reduced(np.all),
    "reduce_or": reduced(np.any),
}

SEVERAL = {"split": split, "unstack": unstack}
