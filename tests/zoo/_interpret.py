"""Programs that run once, run without XLA: their jaxprs, equation by equation, on NumPy.

Compiling a program of a thousand equations takes a hundred times longer than computing it once on
arrays of a dozen numbers. What `_on_numpy` has no rule for is left to the primitive itself.
"""

import functools

import jax
import numpy as np
from jax.extend import core

from braintrace.core._compat import scan_counts

from ._on_numpy import ELEMENTWISE, RULES, SEVERAL, is_key


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
    program = Program(closed)

    def run(*args):
        with np.errstate(all="ignore"):
            outs = program(*map(array, jax.tree.leaves(args)))
        return jax.tree.unflatten(structure, outs)

    return run


def traced_once(function):
    """`function`, run on NumPy, and traced once for arguments of one form, as `jax.jit` does."""
    programs = {}

    def run(*args):
        leaves, structure = jax.tree.flatten(args)
        form = structure, tuple((np.shape(v), jax.dtypes.result_type(v)) for v in leaves)
        if form not in programs:
            programs[form] = interpreted(function, *args)
        return programs[form](*args)

    return run


class Program:
    """A jaxpr as a list of functions of NumPy arrays, with the places of their operands and
    results; what an equation is made of is looked up once, for loops run it many times. What
    depends on constants alone is computed here, and what nobody reads is left out.
    """

    def __init__(self, jaxpr):
        consts = jaxpr.consts if isinstance(jaxpr, core.ClosedJaxpr) else ()
        jaxpr = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
        self.values, self.places, self.steps = [], {}, []
        for var, value in zip(jaxpr.constvars, consts, strict=True):
            self.places[var] = self.keep(array(value))
        self.ins = [self.place(v) for v in jaxpr.invars]
        known = set(jaxpr.constvars)
        for eqn in equations_read(jaxpr):
            places = [self.place(v) for v in eqn.invars], [self.place(v) for v in eqn.outvars]
            step = (operation(eqn), *places)
            if eqn.effects or not known.issuperset(variables(eqn.invars)):
                self.steps.append(step)
            else:
                known.update(eqn.outvars)
                with np.errstate(all="ignore"):
                    perform([step], self.values)
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

    def __call__(self, *args):
        values = self.values.copy()
        for place, value in zip(self.ins, args, strict=True):
            values[place] = value
        perform(self.steps, values)
        return [values[k] for k in self.outs]


def perform(steps, values):
    """Fill the places of results from those of operands."""
    for function, operands, results in steps:
        outs = function(*[values[k] for k in operands])
        for place, value in zip(results, outs, strict=True):
            values[place] = value


def variables(atoms):
    return [v for v in atoms if not isinstance(v, core.Literal)]


def equations_read(jaxpr):
    """The equations that have a result which is read, or an effect."""
    read, kept = set(variables(jaxpr.outvars)), []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or not read.isdisjoint(eqn.outvars):
            read.update(variables(eqn.invars))
            kept.append(eqn)
    return kept[::-1]


def operation(eqn):
    """An equation as a function from its operands to its results."""
    name, of_keys = eqn.primitive.name, any(is_key(v.aval) for v in (*eqn.invars, *eqn.outvars))
    if (loop := LOOPS.get(name)) is not None:
        return loop(eqn.params)
    if of_keys:
        return other(eqn)
    if (elementwise := ELEMENTWISE.get(name)) is not None:
        dtype = eqn.outvars[0].aval.dtype
        return lambda *operands: (np.asarray(elementwise(*operands), dtype),)
    if (rule := RULES.get(name)) is not None:
        function = rule(eqn)
        return lambda *operands: (function(*operands),)
    if (several := SEVERAL.get(name)) is not None:
        return several(eqn)
    return other(eqn)


def array(value, dtype=None):
    """A NumPy array; a PRNG key stays what it is."""
    if isinstance(value, jax.Array) and is_key(value):
        return value
    return np.asarray(value, dtype)


def other(eqn):
    """A call is opened; any other primitive computes itself."""
    for name in ("call_jaxpr", "jaxpr", "fun_jaxpr", "call"):
        if name in eqn.params and eqn.primitive.name != "reduce":
            return Program(eqn.params[name])

    def compute(*operands):
        outs = eqn.primitive.bind(*operands, **eqn.params)
        return [array(v) for v in (outs if eqn.primitive.multiple_results else [outs])]

    return compute


def scan(params):
    """The loop of lax.scan."""
    consts, carried = scan_counts(params)
    length, body = params["length"], Program(params["jaxpr"])
    if not length:
        raise NotImplementedError("a scan of no steps")

    def run(*operands):
        fixed, carry = operands[:consts], operands[consts : consts + carried]
        xs, rows = operands[consts + carried :], {}
        for t in reversed(range(length)) if params["reverse"] else range(length):
            outs = body(*fixed, *carry, *[x[t] for x in xs])
            carry, rows[t] = outs[:carried], outs[carried:]
        columns = zip(*(rows[t] for t in range(length)), strict=True)
        return [*carry, *map(stack, columns)]

    return run


def stack(column):
    return jax.numpy.stack(column) if is_key(column[0]) else np.stack(column)


def cond(params):
    """The branch that is taken; lax.cond's index is clamped."""
    branches = [Program(branch) for branch in params["branches"]]
    last = len(branches) - 1
    return lambda index, *operands: branches[min(max(int(index), 0), last)](*operands)


def loop(params):
    """The loop of lax.while_loop."""
    tests, bodies = params["cond_nconsts"], params["body_nconsts"]
    test, body = Program(params["cond_jaxpr"]), Program(params["body_jaxpr"])

    def run(*operands):
        of_test, of_body = operands[:tests], operands[tests : tests + bodies]
        carry = operands[tests + bodies :]
        while bool(test(*of_test, *carry)[0]):
            carry = body(*of_body, *carry)
        return carry

    return run


LOOPS = {"scan": scan, "cond": cond, "while": loop}
