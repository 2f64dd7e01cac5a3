"""Delayed match to sample, learned data-parallel by several processes: one command starts them.

    python examples/distributed.py --processes 2

Each process has its share of the trials; `learner.shardings` divides carry and traces, each process
runs its own samples, and one sum of the gradient goes round after each sequence. Carry and traces
go on from batch to batch as a stream, and a checkpoint holds them beside the parameters: a run that
was cut off goes on from its last one, in any number of processes, with the same numbers.

Under SLURM, Open MPI or Kubernetes their launcher starts the processes, with --launched in place of
--processes (docs/scale.md).
Rows: the first and the last update.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import cross_entropy, normal, table
from jax.experimental import multihost_utils

import braintrace
from braintrace import tasks

BATCH, WIDTH, PERIOD = 32, 32, 5  # a checkpoint every PERIOD updates


def cell(params, h, x):
    """A gated layer, and its readout."""
    update = jax.nn.sigmoid(x @ params["xz"] + h @ params["hz"])
    h = (1 - update) * h + update * jnp.tanh(x @ params["xh"] + h @ params["hh"])
    return h, h @ params["out"]


def initial(seed, channels):
    keys = jax.random.split(jax.random.key(seed), 5)
    return {
        "xz": normal(keys[0], channels, WIDTH),
        "hz": normal(keys[1], WIDTH, WIDTH),
        "xh": normal(keys[2], channels, WIDTH),
        "hh": normal(keys[3], WIDTH, WIDTH),
        "out": normal(keys[4], WIDTH, 2),
    }


def batch_of(seed, k):
    """The k-th batch, the same in every process: inputs, answers, mask, and where streams begin."""
    trials = tasks.delayed_match_to_sample(BATCH, seed=1000 * seed + k, delay=8)
    begins = np.zeros(trials.mask.shape, bool)
    begins[0] = np.arange(BATCH) % 4 == k % 4  # the other streams go on
    return trials.x, trials.y, trials.mask, begins


def learn(args, mesh):
    """Losses of all updates and the norm of the last gradient; every process has the same ones."""
    example = batch_of(args.seed, 0)[0]
    dtype = np.float64 if args.double else np.float32
    params = jax.tree.map(lambda v: v.astype(dtype), initial(args.seed, example.shape[-1]))
    carry = np.zeros((BATCH, WIDTH), dtype)
    x = np.zeros(example.shape[1:], dtype)
    learner = braintrace.compile(cell, "d_rtrl", x, params=params, carry=carry)
    divided = learner.shardings(mesh, data="data")
    optimizer = optax.adam(5e-3)

    @jax.jit
    def update(params, moments, state, x, y, mask, begins):
        gradients, state, info = learner.etrace_grad(
            params, state, x, y, loss_fn=cross_entropy, mask=mask, reset=begins, shardings=divided
        )
        updates, moments = optimizer.update(gradients, moments, params)
        loss = jnp.sum(info.losses * mask) / mask.sum()
        return optax.apply_updates(params, updates), moments, state, gradients, loss

    params = everywhere(params, divided.whole)
    moments = jax.device_put(optimizer.init(params), divided.whole)
    state, losses, gradients = learner.init(params, carry, shardings=divided), [], params
    path = Path(args.checkpoint) if args.checkpoint else None
    if path is not None and path.exists():
        held = params, moments, state
        (params, moments, state), losses = restored(path, held)
    for k in range(len(losses), args.updates):
        given = [place(v, divided, dtype) for v in batch_of(args.seed, k)]
        params, moments, state, gradients, loss = update(params, moments, state, *given)
        losses.append(float(loss))
        if path is not None and (k + 1) % PERIOD == 0:
            save(path, (params, moments, state), losses)
        if k + 1 == args.stop_after and jax.process_index() == jax.process_count() - 1:
            os._exit(3)  # as if it had been killed
    norm = float(optax.tree.norm(gradients))
    if args.result:
        report(Path(args.result), gradients, params, losses)
    return losses, norm


def everywhere(tree, sharding):
    """The same values in every process."""
    make = lambda v: jax.make_array_from_callback(v.shape, sharding, lambda part: v[part])
    return jax.tree.map(lambda v: make(np.asarray(v)), tree)


def place(values, divided, dtype):
    """The part of a batch (T, B, ...) that belongs to this process."""
    values = np.asarray(values, dtype if values.dtype.kind == "f" else values.dtype)
    return jax.make_array_from_callback(values.shape, divided.samples, lambda part: values[part])


def save(path, held, losses):
    """All that goes on, as whole arrays; process 0 writes. The file is whole or not there."""
    leaves = multihost_utils.process_allgather(jax.tree.leaves(held), tiled=True)
    if jax.process_index() == 0:
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez(file, *map(np.asarray, leaves), losses=np.array(losses))
        part.replace(path)
    multihost_utils.sync_global_devices("saved")


def restored(path, like):
    """The checkpoint's arrays where those of `like` are, and the losses so far."""
    with np.load(path) as file:
        losses = file["losses"].tolist()
        values = [file[f"arr_{k}"] for k in range(len(jax.tree.leaves(like)))]
    of = lambda v, old: jax.make_array_from_callback(v.shape, old.sharding, lambda part: v[part])
    pairs = zip(values, jax.tree.leaves(like), strict=True)
    return jax.tree.structure(like).unflatten([of(*pair) for pair in pairs]), losses


def report(path, gradients, params, losses):
    """Process 0 writes the last gradients, the parameters and the losses."""
    kinds = ("gradient", gradients), ("param", params)
    whole = {f"{kind} {k}": np.asarray(v) for kind, tree in kinds for k, v in tree.items()}
    if jax.process_index() == 0:
        np.savez(path, losses=np.array(losses), **whole)


def start(args, arguments):
    """This program again in several processes of this machine; fails when one of them does."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, *arguments]
    own = lambda rank: {"DISTRIBUTED": json.dumps([f"localhost:{port}", args.processes, rank])}
    started = [
        subprocess.Popen(command, env=os.environ | own(rank)) for rank in range(args.processes)
    ]
    codes: dict[int, int] = {}
    while len(codes) < len(started):
        for rank, process in enumerate(started):
            try:
                codes[rank] = process.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
        if any(codes.values()):  # the others would wait for it
            for process in started:
                process.kill()
    return next((code for code in codes.values() if code), 0)


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--processes", type=int, default=1, help="how many to start on this machine (default 1)")
    add("--launched", action="store_true", help="started by SLURM, Open MPI or Kubernetes")
    add("--quick", action="store_true", help="a few updates only")
    add("--updates", type=int, help="how many updates (default 300)")
    add("--seed", type=int, default=0, help="of weights and data (default 0)")
    add("--double", action="store_true", help="in float64")
    add("--checkpoint", help="a file: written every few updates, and gone on from if it is there")
    add("--result", help="a file for the last gradients, the parameters and the losses")
    add("--stop-after", type=int, help="the last process ends without a word after so many updates")
    args = parser.parse_args()
    args.updates = args.updates or (40 if args.quick else 300)
    return args


def main():
    args = arguments()
    ours = json.loads(os.environ.get("DISTRIBUTED", "null"))
    if ours is None and args.processes > 1:
        return start(args, sys.argv[1:])
    jax.config.update("jax_enable_x64", args.double)
    if ours is not None or args.launched:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")  # where there is no GPU
        jax.distributed.initialize(*(ours or ()))
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    with jax.set_mesh(mesh):
        losses, norm = learn(args, mesh)
    if jax.process_index() == 0:
        first, last = np.mean(losses[:5]), np.mean(losses[-5:])
        heading = "method", "first loss", "last loss", "processes", "gradient"
        print(table(heading, ("D-RTRL", first, last, jax.process_count(), norm)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
