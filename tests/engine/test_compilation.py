"""The tests compile quickly and without much thought; these compile as JAX does by default, for the
same values.
"""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
assert "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ
assert "xla_cpu" not in os.environ.get("XLA_FLAGS", "")
import jax
from functools import partial
from engine._front_end import assert_same, data, distances, learner
from zoo import CASES, bptt, loss

jax.config.update("jax_enable_x64", True)
name = sys.argv[1]
params, carry, xs, ys = data(name)
this = learner(name)
drive = partial(this.etrace_grad, loss_fn=loss, reduction="sum")
right = jax.jit(partial(bptt, CASES[name].oracle))(params, carry, xs, ys)
for window in (1, 3):
    assert_same(drive(params, this.init(params, carry), xs, ys, window=window)[0], right)
apart = distances(jax.jit(partial(bptt, CASES[name].cell))(params, carry, xs, ys), right)
assert max(apart.values()) > 1e-6, apart  # control: BPTT is another gradient
"""


@pytest.mark.parametrize("name", ["alif", "gru_reset_before", "conv1d_recurrent"])
def test_optimised_programs_give_the_same_gradients(name, users_environment):
    command = [sys.executable, "-c", PROGRAM, name]
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        command, cwd=tests, capture_output=True, text=True, check=False, env=users_environment
    )
    assert done.returncode == 0, done.stderr
