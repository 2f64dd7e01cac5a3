"""e-prop on evidence accumulation: count the cues from the left and from the right, wait, and
decide.

The task of Bellec et al., Nature Communications 11:3625 (2020): 7 cues in a second, a delay of
1,050 ms, a decision in the last 150 of 2,250 steps. 50 LIF neurons and 50 with adaptive thresholds
(ALIF), which remember the cues for seconds; e-prop's traces remember what moved the thresholds.
Rows: the readout's own weights as feedback, fixed random feedback, and BPTT, with the same weights,
trials and number of updates. The paper's criterion is 7 % errors. `--short`: 3 cues, 500 steps.
`--long`: 400 updates.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import arguments, cross_entropy, normal, spike, table, train

import braintrace
from braintrace.tasks import evidence_accumulation

BATCH, CHANNELS, LIF, ALIF, TAU, TAU_A, TAU_OUT, THRESHOLD = 64, 40, 50, 50, 20.0, 2000.0, 20.0, 0.6
N, RATE, STRENGTH = LIF + ALIF, 0.01, 2.0  # spikes per step, and how much other rates cost
ALPHA, RHO, KAPPA = (float(np.exp(-1 / tau)) for tau in (TAU, TAU_A, TAU_OUT))
BETA = np.repeat([0.0, 1.7 * (1 - RHO) / (1 - ALPHA)], [LIF, ALIF]).astype(np.float32)
OTHERS = 1 - np.eye(N, dtype=np.float32)


def fire(v, a):
    """The surrogate is the paper's: a triangle of height 0.3 over the distance to the threshold, in
    units of 0.6.
    """
    return spike((v - THRESHOLD - BETA * a) / THRESHOLD, 0.3)


def cell(p, carry, x):
    v, a, y = carry
    z = fire(v, a)  # of the step before
    v = (
        ALPHA * v
        + x @ p["input"]
        + z @ (p["recurrent"] * OTHERS)
        - THRESHOLD * jax.lax.stop_gradient(z)
    )
    a = RHO * a + z
    y = KAPPA * y + fire(v, a) @ p["readout"]
    return (v, a, y), y


def initial(key):
    keys = jax.random.split(key, 3)
    weights = {"input": normal(keys[0], CHANNELS, N), "recurrent": normal(keys[1], N, N, 0.2)}
    return {**weights, "readout": normal(keys[2], N, 2)}


def rest():
    return jnp.zeros((BATCH, N)), jnp.zeros((BATCH, N)), jnp.zeros((BATCH, 2))


def step_loss(out, y, weight):
    """The error counts at the recall; `weight` is the mask, with mean 1 over all steps, since the
    rates count at every step.
    """
    return weight * cross_entropy(out, y)


def weight_of(trials):
    return trials.mask / trials.mask.mean()


def online(params, **feedback):
    learner = braintrace.compile(
        cell,
        "eprop",
        jnp.zeros((BATCH, CHANNELS)),
        params=params,
        carry=rest(),
        kappa_filter_decay="readout",
        firing_rate=(RATE, STRENGTH),
        **feedback,
    )

    def gradient(params, trials):
        state = learner.init(params, rest())
        gradients, _, info = learner.etrace_grad(
            params,
            state,
            trials.x,
            trials.y,
            weight_of(trials),
            loss_fn=step_loss,
            window=50,
            return_state=False,
        )
        return gradients, info.losses.mean()

    return gradient


def through_time(params, trials):
    def loss(params):
        def step(carry, x):
            carry, y = cell(params, carry, x)
            return carry, (y, fire(*carry[:2]))

        outs, spikes = jax.lax.scan(step, rest(), trials.x)[1]
        error = jax.vmap(step_loss)(outs, trials.y, weight_of(trials)).mean()
        return error + STRENGTH / 2 * ((spikes.mean((0, 1)) - RATE) ** 2).sum(), error

    return jax.grad(loss, has_aux=True)(params)


@jax.jit
def errors(params, trials):
    """The share of trials whose mean output over the recall is wrong."""
    outs = jax.lax.scan(lambda carry, x: cell(params, carry, x), rest(), trials.x)[1]
    return ((outs * trials.mask[..., None]).sum(0).argmax(-1) != trials.y[-1]).mean()


def run(gradient, params, updates, deal):
    """`(errors on 1,024 new trials, first and last loss, seconds)`."""

    def say(number, params, loss):
        if number % 20 == 0:
            print(
                f"  update {number}: loss {loss:.3f}, errors {errors(params, deal(1, number)):.3f}",
                flush=True,
            )

    rate = optax.cosine_decay_schedule(5e-3, updates)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    optimizer = optax.apply_if_finite(optimizer, updates)  # BPTT's gradient overflows now and then
    params, losses, seconds = train(
        gradient, params, (deal(0, k) for k in range(updates)), optimizer, say
    )
    wrong = np.mean([errors(params, deal(2, k)) for k in range(2 if updates < 200 else 16)])
    return float(wrong), np.mean(losses[:10]), np.mean(losses[-10:]), seconds


if __name__ == "__main__":
    args = arguments(
        __doc__,
        short="3 cues and 500 steps instead of 7 and 2,250",
        long="400 updates instead of 200",
    )
    sizes = {"cues": 3, "cue": 50, "slot": 80, "delay": 200, "recall": 60} if args.short else {}
    if args.quick:
        sizes = {"cues": 3, "cue": 30, "slot": 40, "delay": 40, "recall": 40}
    params, updates = (
        initial(jax.random.key(args.seed)),
        20 if args.quick else 400 if args.long else 200,
    )
    methods = {
        "e-prop, symmetric": online(params),
        "e-prop, random": online(params, feedback="random", random_feedback_key=args.seed),
        "BPTT": through_time,
    }
    rows = []
    for name, gradient in methods.items():
        print(name)
        deal = lambda *which: evidence_accumulation(BATCH, seed=[args.seed, *which], **sizes)
        rows.append((name, *run(gradient, params, updates, deal)))
    print(table(("method", "errors", "first loss", "last loss", "seconds"), *rows))
