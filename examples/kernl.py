"""KeRNL, a published rule that the library does not have, as an algorithm of one's own: on pattern
generation, as in `rflo.py`.

KeRNL (Roth, Kanitscheider and Fiete, ICLR 2019) puts a kernel in the place of what a recurrent
network does over time: a push of unit i has after tau steps the effect beta[k, i] decay[i]^tau on
unit k. So each weight needs a trace that leaks, and the error comes back through beta. Here that is
one edit of the program of the cell; traces, windows, masks and resets are the library's.

Deviation: the kernel is fitted once, to the Jacobians of the first network, and stays; the paper
learns it beside the weights, from noise. The controls have no kernel across units (beta = 1, which
is D-RTRL with a leak of its own), and train the readout alone.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import arguments, table
from rflo import BATCH, LEAK, UPDATES, WIDTH, cell, initial, online, run, through_time

from braintrace import rules
from braintrace.tasks import pattern_generation

stop = jax.lax.stop_gradient


@dataclasses.dataclass(frozen=True)
class Kernel(rules.Edit):
    """Others read each activity z as `sg(z) + p beta^T`, with p a state whose value is zero,
    `p <- decay p + (z - sg(z))`; the layer's own old state is a constant.
    """

    replaces = "a kernel stands for the dynamics"

    decays: Any = dataclasses.field(compare=False)
    kernels: Any = dataclasses.field(compare=False)

    def acts_on(self, graph, exits):
        return {x.variable for x in exits if x.kind is not rules.ExitKind.RECURRENT}

    def edit(self, editor, exits):
        read = [x for x in exits if x.kind is not rules.ExitKind.RECURRENT]
        for leaf in {leaf for x in read for leaf in editor.graph.groups[x.group].leaves}:
            editor.replace(editor.carry[leaf], editor.stopped, results=False)
        through: dict[Any, Any] = {}
        for x in read:
            equation, operand = x.edge
            if x.variable not in through:
                through[x.variable] = self.read(editor, x.variable, len(through))
            equation.inputs[operand] = through[x.variable]

    def read(self, editor, z, number):
        """What others read in the place of an activity; one kernel stands for all."""
        decay = self.decays[min(number, len(self.decays) - 1)].astype(z.dtype)
        move = lambda p, z: decay * p + (z - stop(z))
        _, p = editor.add_state("kernel", np.zeros(z.shape, z.dtype), move, z, inert=False)
        if self.kernels is None:
            return editor.apply(lambda z, p: stop(z) + p, z, p)
        beta = self.kernels[min(number, len(self.kernels) - 1)].astype(z.dtype)
        return editor.apply(lambda z, p: stop(z) + p @ beta.T, z, p)


@rules.register_algorithm("kernl")
@dataclasses.dataclass(frozen=True, kw_only=True)
class KeRNL(rules.Algorithm):
    """`decays` and `kernels`: a list of one for all layers, or of one for each that others read;
    without kernels no unit acts on another.
    """

    name = "KeRNL"
    multi_step = False

    decays: Any = rules.option(None, rules.matrices, needed=True, compare=False)
    kernels: Any = rules.option(None, rules.matrices, compare=False)

    def parts(self):
        why = "use single steps: BPTT inside a window would follow the network, not the kernel"
        edit = Kernel(self.decays, self.kernels)
        return rules.Rule("KeRNL", rules.PerParameter(), (edit,), why)


def fitted(params, h, xs, reach=20):
    """(decay, beta) from the Jacobians of h after 1 to `reach` steps, in the mean over a stretch of
    the task.
    """

    def jacobian(h, x):
        of_one = lambda h, x: cell(params, h[None], x[None])[0][0]
        return cell(params, h, x)[0], jax.vmap(jax.jacobian(of_one))(h, x)

    _, steps = jax.lax.scan(jacobian, h, xs)
    after, found = jnp.eye(WIDTH), []
    for k in range(reach):  # products of ever more steps
        after = steps[k:] @ (after if k == 0 else after[:-1])
        found.append(after.mean((0, 1)))
    each, tau = jnp.stack([jnp.eye(WIDTH), *found]), jnp.arange(reach + 1)
    own = jnp.maximum(jnp.abs(jnp.diagonal(each, axis1=1, axis2=2)), 1e-3)
    slope = -(jnp.log(own) * tau[:, None]).sum(0) / (tau**2).sum()
    decay = jnp.exp(-jnp.clip(slope, 1e-3))
    powers = decay ** tau[:, None]
    return decay, (each * powers[:, None]).sum(0) / (powers**2).sum(0)


if __name__ == "__main__":
    args = arguments(__doc__)
    updates = 150 if args.quick else UPDATES
    trials = pattern_generation(BATCH, seed=args.seed)
    params = initial(jax.random.key(args.seed), trials.x.shape[-1], trials.y.shape[-1])
    carry = jnp.zeros((BATCH, WIDTH))
    decay, beta = fitted(params, carry, jnp.asarray(trials.x[:100]))
    learning = functools.partial(online, params, carry, trials.x[0])
    kernel = KeRNL(decays=[decay], kernels=[beta])
    rows = [
        ("KeRNL", *run(learning(kernel), params, trials, updates)),
        ("KeRNL, beta = 1", *run(learning("kernl", decays=[LEAK]), params, trials, updates)),
        ("BPTT", *run(through_time(carry), params, trials, updates)),
        ("readout only", *run(learning("d_rtrl", trainable="readout"), params, trials, updates)),
    ]
    print(table(("method", "first loss", "last loss", "seconds"), *rows))
