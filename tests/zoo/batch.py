"""What is a batch: none, one as large as the layer, on another axis, and samples that meet."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.nn import sigmoid, softmax

from ._case import IN, OUT, N, case, draw, generator, keep, shapes

LEAKY = {"a": (N,), "W": (IN, N), "o": (N, OUT)}
RECURRENT = LEAKY | {"U": (N, N), "b": (N,)}
DELAY = 3
TRACED = "a W U b"


def unbatched(make):
    """The data of one sample, without an axis for it."""

    def one(key, T, B):
        params, carry, xs, targets = make(key, T, 1)
        return params, jax.tree.map(lambda v: v[0], carry), xs[:, 0], targets[:, 0]

    return one


def recurrent(p, h, x, old=keep, mix=keep):
    h = sigmoid(p["a"]) * h + jnp.tanh(x @ p["W"] + mix(jnp.tanh(old(h))) @ p["U"] + p["b"])
    return h, h @ p["o"]


def recurrent_case(name, make=None, features="recurrent", **more):
    """The recurrent layer on other data."""
    make = make or shapes((N,), **RECURRENT)
    case(make, name=name, approximate=TRACED, exact="o", features=features, **more)(recurrent)


recurrent_case(
    "no_batch",
    unbatched(shapes((N,), **RECURRENT)),
    "recurrent unbatched",
    compiled={"batch": None},
)
recurrent_case("no_batch_unsaid", unbatched(shapes((N,), **RECURRENT)), "recurrent unbatched")
recurrent_case("as_many_samples_as_neurons", B=N)
recurrent_case("one_sample", B=1)
ONE = {"a": (1,), "W": (IN, 1), "o": (1, OUT), "U": (1, 1), "b": (1,)}
recurrent_case("one_neuron", shapes((1,), **ONE))
recurrent_case("one_neuron_of_one_sample", shapes((1,), **ONE), B=1)
recurrent_case("batch_said", compiled={"batch_size": 2})


@case(
    unbatched(shapes((N,), **LEAKY)), exact="a W o", features="unbatched", compiled={"batch": None}
)
def no_batch_leaky(p, h, x, old=keep, mix=keep):
    h = sigmoid(p["a"]) * h + x @ p["W"]
    return h, jnp.tanh(h) @ p["o"]


# Samples that meet

MEETING = {"features": "recurrent meeting", "B": 3}


def centred(p, h, x, old=keep, mix=keep):
    y = jnp.tanh(x @ p["W"] + mix(jnp.tanh(old(h))) @ p["U"] + p["b"])
    h = sigmoid(p["a"]) * h + y - mix(jnp.mean(y, axis=0))
    return h, h @ p["o"]


case(shapes((N,), **RECURRENT), name="centred_samples", approximate=TRACED, exact="o", **MEETING)(
    centred
)


def centred_units(p, h, x, old=keep, mix=keep):
    """The rows of h are few, and every column of them is one unit, whose mean is its own."""
    y = jnp.tanh(x @ p["W"] + mix(jnp.tanh(old(h))) @ p["U"] + p["b"])
    h = sigmoid(p["a"]) * h + y - jnp.mean(y, axis=0)
    return h, h @ p["o"]


case(
    shapes((N,), **RECURRENT),
    name="centred_populations",
    approximate=TRACED,
    exact="o",
    features="recurrent unbatched",
    B=3,
    compiled={"batch": None},
)(centred_units)


@case(shapes((N,), **LEAKY), approximate="a W", exact="o", **MEETING)
def mean_field(p, h, x, old=keep, mix=keep):
    """Every sample feels the mean old state of the batch."""
    field = mix(jnp.mean(jnp.tanh(old(h)), axis=0))
    h = sigmoid(p["a"]) * h + 0.3 * field + x @ p["W"]
    return h, jnp.tanh(h) @ p["o"]


@case(
    shapes((N,), **LEAKY, q=(N, 2), k=(N, 2)),
    approximate="a W",
    instantaneous="q k",
    exact="o",
    **MEETING,
)
def attention_across_samples(p, h, x, old=keep, mix=keep):
    """Each sample reads the old states of all."""
    read = mix(old(h))
    share = mix(softmax((read @ p["q"]) @ (read @ p["k"]).T, axis=-1))
    h = sigmoid(p["a"]) * h + x @ p["W"] + 0.5 * jnp.tanh(share @ read)
    return h, h @ p["o"]


NORM = LEAKY | {"g": (N,), "b": (N,)}


def normalised(p, y, mean, var):
    return jnp.tanh(p["g"] * (y - mean) * lax.rsqrt(var + 0.1) + p["b"])


@case(shapes((N,), **NORM), approximate="W", exact="a g b o", **MEETING)
def batch_norm(p, h, x, old=keep, mix=keep):
    """Statistics over the batch, of what this step brings."""
    y = x @ p["W"]
    h = sigmoid(p["a"]) * h + normalised(p, y, mix(jnp.mean(y, 0)), mix(jnp.var(y, 0)))
    return h, h @ p["o"]


def with_statistics(make):
    """The same data with a running mean and variance, which have no batch axis."""

    def make_both(key, T, B):
        params, h, *rest = make(key, T, B)
        mean, spread = draw(generator(key, 1), ((N,), (N,)), 0.3)
        return params, {"h": h, "mean": mean, "var": 1 + spread**2}, *rest

    return make_both


@case(with_statistics(shapes((N,), **NORM)), approximate="W", exact="a g b o", **MEETING)
def batch_norm_in_training(p, c, x, old=keep, mix=keep):
    """The running statistics are carried along, and not read."""
    y = x @ p["W"]
    mean, var = mix(jnp.mean(y, 0)), mix(jnp.var(y, 0))
    h = sigmoid(p["a"]) * c["h"] + normalised(p, y, mean, var)
    kept = {k: 0.9 * c[k] + 0.1 * lax.stop_gradient(v) for k, v in (("mean", mean), ("var", var))}
    return {"h": h, **kept}, h @ p["o"]


@case(
    with_statistics(shapes((N,), **NORM)),
    exact="W a g b o",
    features="prelude",
    axes=({"h": 0, "mean": None, "var": None}, 0),
)
def batch_norm_in_use(p, c, x, old=keep, mix=keep):
    """The running statistics are read, and stay as they are."""
    h = sigmoid(p["a"]) * c["h"] + normalised(p, x @ p["W"], c["mean"], c["var"])
    return {**c, "h": h}, h @ p["o"]


# The batch on another axis


def with_history(make):
    """The same data with a history of states, time first."""

    def make_history(key, T, B):
        params, h, *rest = make(key, T, B)
        past = draw(generator(key, 1), (DELAY, B, N), 0.6)
        return params, {"h": h, "past": past}, *rest

    return make_history


HISTORY = {
    "approximate": "a W U",
    "exact": "o",
    "features": "delay recurrent",
    "axes": ({"h": 0, "past": 1}, 0),
}


def delayed(p, c, x, old=keep, mix=keep):
    """The recurrent product reads the state of three steps ago."""
    h = sigmoid(p["a"]) * c["h"] + jnp.tanh(x @ p["W"] + mix(old(c["past"][0])) @ p["U"])
    return {"h": h, "past": mix(jnp.concatenate([c["past"][1:], h[None]]))}, h @ p["o"]


case(with_history(shapes((N,), **LEAKY, U=(N, N))), name="time_first_delay", **HISTORY)(delayed)
case(
    with_history(shapes((N,), **LEAKY, U=(N, N))),
    name="time_first_delay_of_as_many_steps_as_samples",
    B=DELAY,
    **HISTORY,
)(delayed)


def batch_last(make):
    """The same data with the batch as the last axis of the carry and of x."""

    def make_last(key, T, B):
        params, carry, xs, targets = make(key, T, B)
        return params, jax.tree.map(jnp.transpose, carry), jnp.swapaxes(xs, 1, 2), targets

    return make_last


def neurons_by_samples(p, h, x, old=keep, mix=keep):
    """Columns are samples."""
    drive = p["W"].T @ x + p["U"].T @ mix(jnp.tanh(old(h))) + p["b"][:, None]
    h = sigmoid(p["a"])[:, None] * h + jnp.tanh(drive)
    return h, h.T @ p["o"]


for name, samples in (("batch_last", 2), ("batch_last_of_as_many_samples_as_neurons", N)):
    case(
        batch_last(shapes((N,), **RECURRENT)),
        name=name,
        approximate=TRACED,
        exact="o",
        features="recurrent layout",
        B=samples,
        axes=(1, 1),
        compiled={"batch_axes": (1, 1)},
    )(neurons_by_samples)


# Axes of the batch's size that are not the batch


def slots(p, h, x, old=keep, mix=keep):
    """Attention over two slots of each sample, its old state and its input; written for one."""

    def sample(h, y):
        slots = mix(jnp.stack([old(h), y]))
        share = mix(softmax((slots @ p["q"]) @ (slots @ p["k"]).T, axis=-1))
        return jnp.mean(share @ slots, axis=0)

    h = sigmoid(p["a"]) * h + jax.vmap(sample)(h, x @ p["V"])
    return h, h @ p["o"]


for name, samples in (("slots", 3), ("as_many_slots_as_samples", 2)):
    case(
        shapes((N,), a=(N,), q=(N, N), k=(N, N), V=(IN, N), o=(N, OUT)),
        name=name,
        approximate="a",
        instantaneous="q k V",
        exact="o",
        features="recurrent softmax siteless",
        B=samples,
    )(slots)


def a_weight_for_each(make):
    """The same data with a recurrent matrix for each sample."""

    def make_weights(key, T, B):
        params, *rest = make(key, T, B)
        return params | {"U": draw(generator(key, 1), (B, N, N), 0.6)}, *rest

    return make_weights


@case(
    a_weight_for_each(shapes((N,), **LEAKY)),
    approximate="a W U",
    exact="o",
    features="recurrent grouped per-sample",
)
def weight_for_each_sample(p, h, x, old=keep, mix=keep):
    """Members of an ensemble, say."""
    drive = jnp.einsum("bi,bio->bo", mix(old(h)), p["U"])
    h = sigmoid(p["a"]) * h + jnp.tanh(x @ p["W"] + drive)
    return h, h @ p["o"]


def words(make, rows):
    """The same data with integers for x."""

    def make_words(key, T, B):
        params, carry, _, targets = make(key, T, B)
        xs = generator(key, 1).permutation(np.arange(T * B) % rows)
        return params, carry, jnp.asarray(xs).reshape(T, B), targets

    return make_words


def looked_up(p, h, x, old=keep, mix=keep):
    h = sigmoid(p["a"]) * h + p["E"][x]
    return h, jnp.tanh(h) @ p["o"]


def looked_up_one_by_one(p, h, x):
    """As the embedding of a framework does whose modules are written for one sample."""
    h = sigmoid(p["a"]) * h + jax.vmap(lambda word: p["E"][word])(x)
    return h, jnp.tanh(h) @ p["o"]


for name, rows in (("vmapped_embedding", 5), ("as_many_words_as_samples", 2)):
    case(
        words(shapes((N,), a=(N,), E=(rows, N), o=(N, OUT)), rows),
        name=name,
        exact="a E o",
        features="embedding",
        cell=looked_up_one_by_one,
    )(looked_up)


@case(
    lambda key, T, B: with_key(*shapes((N,), **LEAKY, s=(N,))(key, T, B), key),
    exact="a W s o",
    features="key shared-carry",
    axes=({"h": 0, "key": None}, 0),
)
def one_key_for_all(p, c, x, old=keep, mix=keep):
    """One key, split at every step, for the noise of all samples."""
    key, used = jax.random.split(c["key"])
    noise = jax.random.normal(used, c["h"].shape, c["h"].dtype)
    h = sigmoid(p["a"]) * c["h"] + x @ p["W"] + jnp.exp(p["s"]) * noise
    return {"h": h, "key": key}, jnp.tanh(h) @ p["o"]


def with_key(params, h, xs, targets, key):
    return params, {"h": h, "key": key}, xs, targets
