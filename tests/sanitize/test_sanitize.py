"""The C kernels under AddressSanitizer and UBSan; `make sanitize` also does so for this processor's
own instructions.
"""

import pytest

from ._calls import compiled, missing, run


def test_the_kernels_stay_within_their_operands(tmp_path):
    if reason := missing(tmp_path):
        pytest.skip(reason)
    program = compiled(tmp_path)
    done = run(program)
    assert done.returncode == 0, done.stderr
    assert "calls agree with the definition" in done.stdout

    short = run(program, "short")  # controls: memory that is a number too short, and an overflow
    assert short.returncode != 0 and "heap-buffer-overflow" in short.stderr
    assert "traces.h" in short.stderr.partition("#1")[0]
    short = run(program, "short pairs")
    assert short.returncode != 0 and "pairs.h" in short.stderr.partition("#1")[0]
    assert "signed integer overflow" in run(program, "overflow").stderr
