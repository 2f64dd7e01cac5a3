"""The laws of rules: each is a number of gradients that must be equal, or something to say."""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from ..core.analysis import Exactness
from ..core.traces import nbytes
from ._rule_trial import Given, Trial, compiled, of_steps

#: What is compared, and the two gradients.
Pairs = Iterator[tuple[str, PyTree, PyTree]]


def windows(trial: Trial) -> Pairs:
    """Windows of one step, of three, of the default size, and single steps."""
    given = trial.given
    right = trial.gradient(given, 1)
    yield "a window of 3 against one of 1", trial.gradient(given, 3), right
    yield "the default window against one of 1", trial.gradient(given, None), right
    if trial.steps_add_up:
        given = given._replace(mask=jnp.ones_like(given.mask))
        right = trial.gradient(given, 1)
        yield "single steps against a window of 1", compiled(trial.step_by_step)(given), right


def samples(trial: Trial) -> Pairs:
    """The whole is the sum over samples, and none depends on another's inputs."""
    given, count = trial.given, trial.samples
    if count is None or count < 2:
        return
    alone = [_weighed(given, jnp.arange(count) == b) for b in range(count)]
    each = [trial.gradient(one) for one in alone]
    total = jax.tree.map(lambda *g: sum(g[1:], g[0]), *each)
    yield "a batch against the sum of its samples", trial.gradient(given), total
    if trial.inputs_of_samples:
        others = lambda v: jnp.concatenate([v[:, :1], _another(v[:, 1:])], 1)
        changed = alone[0]._replace(xs=jax.tree.map(others, given.xs))
        yield "one sample beside other inputs of the others", trial.gradient(changed), each[0]


def linear(trial: Trial) -> Pairs:
    """In the weights of losses, targets and modulators, and in the loss."""
    given = trial.given
    half = given._replace(mask=given.mask**2)
    scaled = given._replace(mask=3 * given.mask)
    both = given._replace(mask=given.mask + half.mask)
    first = trial.gradient(given)
    yield "three times the weights", trial.gradient(scaled), _times(3, first)
    added = jax.tree.map(jnp.add, first, trial.gradient(half))
    yield "the sum of two weights", trial.gradient(both), added

    def of_loss(*factors: float) -> PyTree:
        rows = jnp.broadcast_to(jnp.asarray(factors, given.factors.dtype), given.factors.shape)
        return trial.gradient(given._replace(factors=rows))

    # what a rule adds to the gradient of the loss stays
    none = of_loss(0, 0)
    less = lambda gradient: jax.tree.map(jnp.subtract, gradient, none)
    right = jax.tree.map(lambda a, b: 2 * a + 3 * b, less(of_loss(1, 0)), less(of_loss(0, 1)))
    yield "the sum of two losses", less(of_loss(2, 3)), right


def reset(trial: Trial) -> Pairs:
    """The first sample is reset, inside of a window and between two."""
    given, count = trial.given, trial.samples
    if count is None or not trial.inputs_of_samples:
        return
    steps, times = trial.example.steps, jnp.arange(trial.example.steps)[:, None]
    first, none = jnp.arange(count) == 0, jnp.zeros((trial.example.steps, count), bool)
    given = given._replace(reset=none)
    if trial.draws:  # a new sequence has other draws: the one before the reset changes nothing
        counted = _weighed(given._replace(reset=(times == 3) & first), first & (times >= 3))
        earlier = lambda v: v.at[:3].set(_another(v[:3]))
        changed = counted._replace(xs=jax.tree.map(earlier, given.xs))
        yield "other inputs before a reset", trial.gradient(changed), trial.gradient(counted)
        return
    for at in (2, 3):
        whole = trial.gradient(given._replace(reset=(times == at) & first))
        before = trial.gradient(_weighed(given, ~first | (times < at)))
        rolled = _rolled(given, at)
        after = trial.gradient(_weighed(rolled, first & (times < steps - at)))
        parts = jax.tree.map(jnp.add, before, after)
        yield f"a reset before step {at} against two sequences", whole, parts


def mask(trial: Trial) -> Pairs:
    """Nothing counts that has weight zero, and nothing comes back from later steps."""
    given, last = trial.given, trial.example.steps - 2
    zero = trial.gradient(given._replace(mask=jnp.zeros_like(given.mask)))
    yield "no weights at all against zero", zero, jax.tree.map(jnp.zeros_like, zero)
    early = given._replace(mask=given.mask.at[last:].set(0))
    later = lambda v: v.at[last:].set(_another(v[last:]))
    changed = early._replace(ys=jax.tree.map(later, given.ys), xs=jax.tree.map(later, given.xs))
    yield "other inputs after the last loss", trial.gradient(changed), trial.gradient(early)


def draws(trial: Trial) -> Pairs:
    """The numbers of a key, of a rule that draws."""
    if not trial.draws:
        return
    other = trial.given._replace(key=jax.random.key(1))
    found, right = trial.gradient(other, 3), trial.gradient(other, 1)
    yield "one key in windows of 3 and of 1", found, right
    report = trial.compared(found, trial.gradient(trial.given))
    if all(map(report.equal, report.rows)):
        raise ValueError("another key gives the same gradient")


def jit(trial: Trial) -> Pairs:
    """Eager calls against compiled ones, and a loop of steps against a scan of them."""
    given = trial.given
    yield "an eager sequence against a compiled one", trial.plain(given, 3), trial.gradient(given)
    state, total = trial.learner.init(given.params, given.carry, key=given.key), None
    for t in range(trial.example.steps):
        at = jax.tree.map(lambda v, t=t: v[t], of_steps(given))
        state, found = trial.one_step(given.params, state, at)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    yield "eager steps against a scan", total, compiled(trial.step_by_step)(given)


def vmap(trial: Trial) -> Pairs:
    """Over parameters and inputs."""
    given = trial.given
    both = [given, given._replace(params=_smaller(given.params), xs=_smaller(given.xs))]
    stack = lambda *v: jnp.stack([jnp.asarray(x) for x in v])
    together = jax.tree.map(stack, *((g.params, g.xs) for g in both))

    def mapped(params: PyTree, xs: PyTree) -> PyTree:
        return trial.plain(given._replace(params=params, xs=xs), 3)

    found = compiled(jax.vmap(mapped))(*together)
    for k, alone in enumerate(both):
        part = jax.tree.map(lambda v, k=k: v[k], found)
        yield f"entry {k} of a map against a call", part, trial.gradient(alone)
    many = jax.tree.map(stack, given.xs, _smaller(given.xs))
    summed = compiled(lambda xs: trial.of_last_step(given, xs))
    each = [summed(jax.tree.map(lambda v, k=k: v[k : k + 1], many)) for k in range(2)]
    yield "a map with shared parameters against a sum", summed(many), jax.tree.map(jnp.add, *each)


def certificate(trial: Trial) -> tuple[str, str]:
    """What is certified, against BPTT; and where more is right than is certified."""
    found = trial.gradient(trial.given, None)
    report = trial.compared(found, compiled(trial.bptt)(trial.given))
    modest = []
    for row in report.rows:
        exact = row.certificate is Exactness.EXACT
        if exact and not report.equal(row):
            return f"{row.path} is certified exact, and differs by {report.error(row):.1e}", ""
        if not exact and report.equal(row) and not report.vanishes(row):
            modest.append(row.path)
    return "", f"{', '.join(modest)}: right, though not certified exact" if modest else ""


def stated_bytes(trial: Trial) -> tuple[str, str]:
    """Whether the bytes of the arrays are those that are said; there is nothing to add."""
    return _bytes(trial), ""


def _bytes(trial: Trial) -> str:
    """The plan, the report, and the arrays at the start, after a step and after a sequence."""
    this, given = trial.learner, trial.given
    start = this.init(given.params, given.carry)
    said, held = this.memory_plan(trial.example.steps).traces, nbytes(start.traces)
    if said != held:
        return f"the plan says {said} bytes, and the traces have {held}"
    at = jax.tree.map(lambda v: v[0], of_steps(given))
    moved = jax.eval_shape(lambda p, s: trial.one_step(p, s, at)[0], given.params, start)
    evolved = jax.eval_shape(this.etrace_evolve, given.params, start, given.xs)[0]
    for after, when in ((moved, "a step"), (evolved, "a sequence")):
        if (now := nbytes(after.traces)) != held:
            return f"the traces have {held} bytes at the start, and {now} after {when}"
    return _by_site(trial, start.traces)


def _by_site(trial: Trial, traces: PyTree) -> str:
    """Each array belongs to one site, but for what is small and all sites share."""
    graph, carrier = trial.learner.graph, trial.learner.rule.carrier
    carried = traces["carrier"] if graph.extra else traces
    leaves, structure = jax.tree.flatten(carried)
    numbers, owner = structure.unflatten(range(len(leaves))), dict[int, int]()
    for n in range(len(graph.sites)):
        for k in jax.tree.leaves(carrier.of_site(numbers, n)):
            if owner.setdefault(k, n) != n:
                return f"of_site counts one array at the sites {owner[k]} and {n}"
    shared = nbytes([v for k, v in enumerate(leaves) if k not in owner])
    small = nbytes([graph.carry[k] for k in graph.hidden]) + 16 * graph.samples
    if shared > small:
        return f"of_site leaves out {shared} bytes of {nbytes(leaves)}: the report has too little"
    return ""


#: Those that compare gradients, and those that say (what is wrong, what is worth knowing).
GRADIENTS: dict[str, Callable[[Trial], Pairs]] = {
    "windows": windows,
    "samples": samples,
    "linear": linear,
    "reset": reset,
    "mask": mask,
    "draws": draws,
    "jit": jit,
    "vmap": vmap,
}
STATEMENTS: dict[str, Callable[[Trial], tuple[str, str]]] = {
    "bytes": stated_bytes,
    "certificate": certificate,
}


def _weighed(given: Given, kept: Bool[Array, "..."]) -> Given:
    return given._replace(mask=jnp.where(kept, given.mask, 0))


def _rolled(given: Given, steps: int) -> Given:
    """The sequences, beginning at a later step; what comes round stands at the end."""
    roll = functools.partial(jax.tree.map, lambda v: jnp.roll(v, -steps, axis=0))
    sequences = given.xs, given.ys, given.mask, given.signals
    xs, ys, weights, signals = map(roll, sequences)
    return given._replace(xs=xs, ys=ys, mask=weights, signals=signals)


def _times(factor: float, gradient: PyTree) -> PyTree:
    return jax.tree.map(lambda g: factor * g, gradient)


def _another(values: Array) -> Array:
    return values + 1 if jnp.issubdtype(values.dtype, jnp.inexact) else values[::-1]


def _smaller(tree: PyTree) -> PyTree:
    inexact = lambda v: jnp.issubdtype(jnp.result_type(v), jnp.inexact)
    return jax.tree.map(lambda v: 0.7 * v if inexact(v) else v, tree)
