"""Learning rules by hand, as published and as the page says of the other package."""

import jax
import jax.numpy as jnp

from .minimal import LEAK, PLAIN, I, N, spike, step_by_step, surrogate
from .steps import two_layers


def factorised(decay, bias=True, corrected=True):
    """The rule by hand: with or without an input trace of the bias, and a correction that stays."""

    def gradient(given):
        p = {"b": jnp.zeros(N)} | dict(given.params)

        def one(kept, at):
            h, inputs, slope = kept
            t, x, y = at
            h = LEAK * h + x @ p["W"] + p["b"]
            inputs = decay * inputs + jnp.append(x, 1.0)
            slope = decay * LEAK * slope + (1 - decay)
            signal = 2 * (jnp.tanh(h) @ p["o"] - y) @ p["o"].T * (1 - jnp.tanh(h) ** 2)
            gathered = jnp.where(corrected or t < 1000, 1 - decay ** (t + 1), 1.0)
            read = inputs if bias else inputs.at[-1].set(1.0)
            return (h, inputs, slope), jnp.outer(read, signal * slope / gathered)

        start = given.carry["h"], jnp.zeros(I + 1), jnp.zeros(N)
        steps = jnp.arange(len(given.xs)), given.xs, given.ys
        total = jax.lax.scan(one, start, steps)[1][-counted(given) :].sum(0)
        return {"W": total[:-1], "b": total[-1]}

    return gradient


def counted(given):
    """The steps whose gradients are added up: of a long sequence those behind the thousandth."""
    return len(given.xs) - 1000 * (len(given.xs) > 1000)


def behind_a_thousand(learner, model, given):
    return step_by_step(learner, model, given, silent=1000)


KAPPA, SILENT, SLOW = 0.7, 2, 0.9995


def filtered(behind_the_spikes):
    """e-prop by hand, with a filter that moves at every step or only where a gradient is taken."""

    def gradient(given):
        h, trace, kept, total = given.carry["h"], 0.0, 0.0, 0.0
        for t, (x, y) in enumerate(zip(given.xs, given.ys, strict=True)):
            h = 0.9 * (h - 0.3 * spike(h - 0.3)) + x @ given.params["W"]
            trace = 0.9 * trace + jnp.outer(x, jnp.ones(N))
            slope = surrogate(h - 0.3)
            if behind_the_spikes:
                kept = KAPPA * kept + slope * trace
            elif t >= SILENT:
                kept = KAPPA * kept + trace
            if t >= SILENT:
                signal = 2 * (spike(h - 0.3) @ given.params["o"] - y) @ given.params["o"].T
                total = total + kept * signal * (1.0 if behind_the_spikes else slope)
        return {"W": total}

    return gradient


def behind_silent_steps(learner, model, given):
    return step_by_step(learner, model, given, silent=SILENT)


def estimates(published, full=False):
    """OTPE by hand, for the hidden weight: inputs filtered twice and the mean of the surrogates, or
    once and a sum that holds no surrogate but that of now. The full form has no mean.
    """

    def gradient(given):
        p, h = given.params, given.carry
        once = twice = mean = jnp.zeros(())
        count, total, trace, later = 0.0, 0.0, 0.0, 0.0
        for x, y in zip(given.xs, given.ys, strict=True):
            h, out = two_layers(p, h, x, PLAIN)
            slope = surrogate(h["v"] - 0.3)
            trace = LEAK * trace + jnp.outer(x, jnp.ones(N))
            later = LEAK * later + trace * slope
            once = LEAK * once + x
            twice = LEAK * twice + once
            mean = (LEAK * count * mean + slope) / (LEAK * count + 1)
            count = LEAK * count + 1
            signal = 2 * (out - y) @ p["o"].T
            if full:
                total = total + signal * (later if published else slope * trace)
            elif published:
                total = total + jnp.outer(twice, signal * mean)
            else:
                total = total + jnp.outer(once, signal * slope * count)
        return {"W": total}

    return gradient
