"""Beside the table: front ends, calls inside `jax.shard_map`, losses and options, budgets."""

import functools

import brainstate
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import braintrace
from braintrace.core.kernels import registered

from ._cells import CELLS, IN, OUT, SAMPLES, STEPS, N, example, loss
from ._measure import distance, moves


def mesh_of(*shape, kind=AxisType.Auto):
    return jax.make_mesh(shape, ("data", "model"), axis_types=(kind,) * 2)


def gru_learner(rule="d_rtrl", **options):
    cell, params, carry, xs, targets, _ = example("gru")
    learner = braintrace.compile(cell, rule, xs[0], params=params, carry=carry, **options)
    return learner, params, carry, xs, targets


def on_mesh(learner, params, xs, targets, mesh):
    divided = learner.shardings(mesh, data="data", model="model")
    params, xs = jax.device_put((params, xs), (divided.params, divided.xs))
    return divided, params, xs, jax.device_put(targets, divided.samples)


def masks_and_resets():
    """By device, with a mask that holds a zero, a reset and what a loss returns beside it."""
    learner, params, carry, xs, targets = gru_learner()
    random = np.random.default_rng(1)
    mask = jnp.asarray(random.uniform(0.5, 1.5, (STEPS, SAMPLES))).at[1, 0].set(0)
    reset = jnp.zeros((STEPS, SAMPLES), bool).at[2, 3].set(True)
    with_aux = lambda out, y: (loss(out, y), jnp.abs(out - y))
    how = {"loss_fn": with_aux, "has_aux": True, "mask": mask, "reset": reset, "window": 2}
    state = learner.init(params, carry)
    whole = learner.etrace_grad(params, state, xs, targets, **how)
    off = 0.0
    for mesh in (mesh_of(8, 1), mesh_of(4, 2)):
        divided, p, x, y = on_mesh(learner, params, xs, targets, mesh)
        start = learner.init(p, carry, shardings=divided)
        for kept in (True, False):
            how["return_state"] = kept
            found = learner.etrace_grad(p, start, x, y, shardings=divided, **how)
            off = max(off, distance(found[0], whole[0]), distance(found[2], whole[2]))
            off = max(off, distance(found[1].traces, whole[1].traces)) if kept else off
        bare = learner.init(p, carry, traces=False, shardings=divided)
        found = learner.etrace_grad(p, bare, x, y, shardings=divided, **how)
        off = max(off, distance(found[0], whole[0]))
    return off


def one_sum(loss_fn):
    """(distance, all-reduces) of a gradient by device."""
    learner, params, carry, xs, targets = gru_learner()
    whole = learner.etrace_grad(params, learner.init(params, carry), xs, targets, loss_fn=loss_fn)
    divided, p, x, y = on_mesh(learner, params, xs, targets, mesh_of(8, 1))
    how = {"loss_fn": loss_fn, "window": 2, "shardings": divided}
    program = jax.jit(functools.partial(learner.etrace_grad, **how))
    given = p, learner.init(p, carry, shardings=divided), x, y
    compiled = program.lower(*given).compile()
    return distance(compiled(*given)[0], whole[0]), moves(compiled, None)[0].get("all-reduce", 0)


def losses():
    """Which losses are taken by device: those of one value per sample, each by itself."""
    number = jnp.arange(SAMPLES)
    return {
        "each": one_sum(loss),
        "mean": one_sum(lambda out, y: loss(out, y).mean()),
        "centred": one_sum(lambda out, y: loss(out - out.mean(0), y)),
        "numbered": one_sum(lambda out, y: number * loss(out, y)),
    }


def meeting_cell():
    """A cell whose samples meet runs as XLA divides it."""
    cell, params, carry, xs, targets, _ = example("gru")
    normal = lambda p, h, x: cell(p, h, x - x.mean(0))
    how = {"params": params, "carry": carry, "batch_size": SAMPLES}
    learner = braintrace.compile(normal, "d_rtrl", xs[0], **how)
    whole = learner.etrace_grad(params, learner.init(params, carry), xs, targets, loss_fn=loss)
    divided, p, x, y = on_mesh(learner, params, xs, targets, mesh_of(8, 1))
    start = learner.init(p, carry, shardings=divided)
    found = learner.etrace_grad(p, start, x, y, loss_fn=loss, shardings=divided)
    return distance(found[0], whole[0]), learner._programs.part(8).why_not


def inside_shard_map():
    """Of a learner of one sample on each device, with the checks of `shard_map` and without: a
    sequence, a step under `jax.grad`, and forward.
    """
    learner, params, carry, xs, targets = gru_learner()
    cell = CELLS["gru"][0]
    single = braintrace.compile(cell, "d_rtrl", xs[0, :1], params=params, carry=carry[:1])

    def run(learner, added, params, carry, xs, targets):
        state = learner.init(params, carry)
        gradient, state, info = learner.etrace_grad(
            params, state, xs, targets, loss_fn=loss, reduction="sum", window=2
        )

        def step(params):
            new, out = learner.update(params, state, xs[0])
            return loss(out, targets[0]).sum(), new

        of_step, state = jax.grad(step, has_aux=True)(added[0](params))
        state, outs = learner.etrace_evolve(params, state, xs)
        return added[1](gradient), added[1](of_step), state.carry, info.losses, outs

    one = lambda v: v
    whole = run(learner, (one, one), params, carry, xs, targets)
    vary = lambda p: jax.lax.pcast(p, "data", to="varying")
    total = lambda v: jax.lax.psum(v, "data")
    steps = P(None, "data")
    off = {}
    for checked in (True, False):
        split = functools.partial(run, single, (vary if checked else one, total))
        mapped = jax.shard_map(
            split,
            mesh=mesh_of(8, 1),
            in_specs=(P(), P("data"), steps, steps),
            out_specs=(P(), P(), P("data"), steps, steps),
            check_vma=checked,
        )
        off[f"checked={checked}"] = distance(jax.jit(mapped)(params, carry, xs, targets), whole)
    return off


def explicit_steps():
    """On explicit axes, single steps and their derivative, under `jax.jit`."""
    learner, params, carry, xs, targets = gru_learner("pp_prop", decay_or_rank=0.9)

    def run(params, carry, xs, targets):
        state = learner.init(params, carry)

        def step(params):
            new, out = learner.update(params, state, xs[0])
            return loss(out, targets[0]).sum(), new

        gradient, state = jax.grad(step, has_aux=True)(params)
        state, outs = learner.update_window(params, state, xs)
        state, more = learner.etrace_evolve(params, state, xs)
        return gradient, state.carry, state.traces, outs, more

    whole = run(params, carry, xs, targets)
    mesh = mesh_of(4, 2, kind=AxisType.Explicit)
    divided, p, x, y = on_mesh(learner, params, xs, targets, mesh)
    with jax.set_mesh(mesh):
        found = jax.jit(run)(p, jax.device_put(carry, divided.carry), x, y)
    specs = [str(v.sharding.spec) for v in jax.tree.leaves(found[2])]
    return distance(found, whole), specs


def random_numbers():
    """A rule that draws, with another key than 0: one estimate on all meshes."""
    learner, params, carry, xs, targets = gru_learner("uoro")
    start = learner.init(params, carry, key=5)
    whole = learner.etrace_grad(params, start, xs, targets, loss_fn=loss)
    other = learner.etrace_grad(params, learner.init(params, carry), xs, targets, loss_fn=loss)
    off = []
    for mesh in (mesh_of(8, 1), mesh_of(4, 2), mesh_of(1, 8)):
        divided, p, x, y = on_mesh(learner, params, xs, targets, mesh)
        start = learner.init(p, carry, key=5, shardings=divided)
        for own in (divided, None):
            found = learner.etrace_grad(p, start, x, y, loss_fn=loss, shardings=own)
            off.append(distance(found[0], whole[0]))
    return max(off), distance(other[0], whole[0])


def budget():
    """Bytes that all devices and one of them need, and what budgets just above and below the latter
    say.
    """
    learner, params, carry, xs, targets = gru_learner()
    mesh, said = mesh_of(8, 1), []
    divided, p, x, y = on_mesh(learner, params, xs, targets, mesh)
    whole, each = (learner.memory_plan(STEPS, STEPS, shardings=s) for s in (None, divided))
    for limit in (each.total, each.total - 1):
        divided = learner.shardings(mesh, data="data", memory_budget=limit)
        start = learner.init(p, carry, shardings=divided)
        how = {"loss_fn": loss, "window": STEPS, "shardings": divided}
        try:
            learner.etrace_grad(p, start, x, y, **how)
            said.append("")
        except braintrace.UsageError as error:
            said.append(str(error).splitlines()[0])
    return whole.total, each.total, said


def made_in_place():
    """The bytes of the largest array of the program that makes divided traces, and of a whole
    trace.
    """
    learner, *_ = gru_learner()
    divided = learner.shardings(mesh_of(4, 2), data="data", model="model")
    make = functools.partial(learner.rule.init, learner.graph)
    program = jax.jit(make, out_shardings=divided.state.traces).lower().compile()
    held = program.memory_analysis()
    return held.output_size_in_bytes + held.temp_size_in_bytes, divided.bytes["traces"]


class EquinoxCell(eqx.Module):
    w: jax.Array
    u: jax.Array
    o: jax.Array

    def __call__(self, x, h):
        h = jnp.tanh(0.5 * h + x @ self.w + h @ self.u)
        return h, h @ self.o


class NnxCell(nnx.Module):
    def __init__(self, w, u, o):
        self.w, self.u, self.o = map(nnx.Param, (w, u, o))

    def __call__(self, h, x):
        h = jnp.tanh(0.5 * h + x @ self.w[...] + h @ self.u[...])
        return h, h @ self.o[...]


class BrainstateCell(brainstate.nn.Module):
    def __init__(self, w, u, o):
        super().__init__()
        self.w, self.u, self.o = map(brainstate.ParamState, (w, u, o))

    def init_state(self, batch_size=None, **_):
        self.h = brainstate.HiddenState(jnp.zeros((batch_size, N)))

    def update(self, x):
        h = self.h.value
        self.h.value = jnp.tanh(0.5 * h + x @ self.w.value + h @ self.u.value)
        return self.h.value @ self.o.value


def _arrays():
    random = np.random.default_rng(3)
    draw = lambda *shape: jnp.asarray(0.5 * random.standard_normal(shape))
    weights = draw(IN, N), draw(N, N), draw(N, OUT)
    return weights, draw(STEPS, SAMPLES, IN), draw(STEPS, SAMPLES, OUT)


def equinox_module():
    weights, xs, ys = _arrays()
    model, carry = EquinoxCell(*weights), jnp.zeros((SAMPLES, N))
    learner = braintrace.compile(model, "d_rtrl", xs[0], carry=carry)
    whole = learner.etrace_grad(model, learner.init(model, carry), xs, ys, loss_fn=loss)[0]
    off = []
    for mesh in (mesh_of(8, 1), mesh_of(4, 2)):
        divided = learner.shardings(mesh, data="data", model="model")
        m, x = eqx.filter_shard(model, divided.params), jax.device_put(xs, divided.xs)
        y = jax.device_put(ys, divided.samples)
        state = learner.init(m, carry, shardings=divided)
        for own in (None, divided):
            found = learner.etrace_grad(m, state, x, y, loss_fn=loss, window=2, shardings=own)
            off.append(distance(found[0], whole))
    return max(off)


def nnx_module():
    weights, xs, ys = _arrays()
    carry, off = jnp.zeros((SAMPLES, N)), []
    learner = braintrace.compile(NnxCell(*weights), "d_rtrl", xs[0], carry=carry)
    whole = learner.etrace_grad(xs, ys, loss_fn=loss)[0]
    specs = set()
    for mesh in (mesh_of(8, 1), mesh_of(4, 2)):
        learner = braintrace.compile(NnxCell(*weights), "d_rtrl", xs[0], carry=carry)
        divided = learner.shardings(mesh, data="data", model="model")
        learner.divide(divided)
        x, y = jax.device_put((xs, ys), divided.samples)
        for own in (None, divided):
            learner.reset_state(model=True)
            found = learner.etrace_grad(x, y, loss_fn=loss, window=2, shardings=own)[0]
            off.append(distance(nnx.to_pure_dict(found), nnx.to_pure_dict(whole)))
        traces = jax.tree.leaves(learner.traces.get_value())
        specs |= {len(v.sharding.device_set) for v in traces}
    return max(off), sorted(specs)


def brainstate_module():
    weights, xs, ys = _arrays()
    made = lambda: braintrace.compile(BrainstateCell(*weights), "d_rtrl", xs[0], batch_size=SAMPLES)
    whole, off = made().etrace_grad(xs, ys, loss_fn=loss), []
    specs = set()
    for mesh in (mesh_of(8, 1), mesh_of(4, 2)):
        learner = made()
        divided = learner.shardings(mesh, data="data", model="model")
        learner.divide(divided)
        x, y = jax.device_put((xs, ys), divided.samples)
        for _ in range(2):
            found = learner.etrace_grad(x, y, loss_fn=loss, window=2)
            off.append(distance(found, whole))
            learner.reset_state(model=True)
        specs |= {len(v.sharding.device_set) for v in jax.tree.leaves(learner.etrace.value)}
    return max(off), sorted(specs)


def bad_calls():
    """What is refused, in words."""
    learner, params, carry, xs, targets = gru_learner()
    mesh, said = mesh_of(4, 2), {}
    state = learner.init(params, carry)
    calls = {
        "mesh": lambda: learner.shardings("mesh", data="data"),
        "data": lambda: learner.shardings(mesh, data="batch"),
        "model": lambda: learner.shardings(mesh, model=3),
        "twice": lambda: learner.shardings(mesh, data="data", model="data"),
        "init": lambda: learner.init(params, carry, shardings=mesh),
        "plan": lambda: learner.memory_plan(3, shardings="data"),
        "grad": lambda: learner.etrace_grad(
            params, state, xs, targets, loss_fn=loss, shardings=mesh
        ),
    }
    for name, call in calls.items():
        try:
            call()
            said[name] = ""
        except braintrace.UsageError as error:
            said[name] = str(error).splitlines()[0]
    return said


def kernel():
    """Whether the C kernel is in use, and in the programs of a mesh."""
    learner, params, carry, xs, targets = gru_learner()
    found = {}
    for shape in ((8, 1), (4, 2)):
        divided, p, x, y = on_mesh(learner, params, xs, targets, mesh_of(*shape))
        state = learner.init(p, carry, shardings=divided)
        for own in (None, divided):
            how = {"loss_fn": loss, "window": 2, "shardings": own}
            program = jax.jit(functools.partial(learner.etrace_grad, **how))
            text = program.lower(p, state, x, y).compile().as_text()
            found[f"{shape} {'by device' if own else 'xla'}"] = "braintrace_traces" in text
    return registered(), found


SETTINGS = {
    run.__name__: run
    for run in (
        masks_and_resets,
        losses,
        meeting_cell,
        inside_shard_map,
        explicit_steps,
        random_numbers,
        budget,
        made_in_place,
        equinox_module,
        nnx_module,
        brainstate_module,
        bad_calls,
        kernel,
    )
}
