"""The life of a compiled library: built once by many processes, taken only from where nobody else
can put one, made again when it is damaged, and there for executables of other processes.

Most of it is shown with a small library, in processes that import the builder without JAX.
"""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental import serialize_executable

from braintrace.core.kernels import Operands, _build, _cache, advance_and_contract, registered

OTHER = 12345  # a user without a name
CODE = """
#ifndef ANSWER
#define ANSWER 42
#endif
int answer(void) { return ANSWER; }
"""
#: In place of the package, which imports JAX.
BUILDER = f"""
import os, sys, types
from pathlib import Path
sys.modules["kernels"] = types.ModuleType("kernels")
sys.modules["kernels"].__path__ = [{str(Path(_build.__file__).parent)!r}]
from kernels import _build, _cache
source = _build.Source("answer", Path(sys.argv[1]), flags=("-O0",))
"""
ANSWER = "\nlibrary = _build.load(source) or _build.build(source)"
ANSWER += "\nprint(library.answer() if library else library)"

pytestmark = pytest.mark.skipif(not _build._compilers(), reason="no C compiler here")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of other users")


class Home:
    """What a process finds: a cache, a directory for temporary files, a source and compilers."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.cache = folder / "home" / "braintrace"
        self.temporary = folder / "temporary"
        self.code = folder / "answer.c"
        self.temporary.mkdir()
        self.code.write_text(CODE)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_CACHE_HOME": str(self.cache.parent),
            "TMPDIR": str(self.temporary),
        }

    def start(self, before: str = "", prefix: Sequence[str] = (), **more: str) -> subprocess.Popen:
        return subprocess.Popen(
            [*prefix, sys.executable, "-c", BUILDER + before + ANSWER, str(self.code)],
            env=self.environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def answer(self, before: str = "", prefix: Sequence[str] = (), **more: str) -> str:
        return ended(self.start(before, prefix, **more))

    def libraries(self) -> list[Path]:
        return sorted(self.folder.rglob("answer-*.so"))

    def compiler(self, name: str, before: str) -> str:
        """A compiler that does something else first."""
        path = self.folder / name
        path.write_text(f'#!/bin/sh\n{before}\nexec cc "$@"\n')
        path.chmod(0o755)
        return str(path)

    def plant(self, content: bytes) -> Path:
        """A library in the cache as if it were built there."""
        stem = _build.Source("answer", self.code, flags=("-O0",)).stem
        self.cache.mkdir(mode=0o700, parents=True)
        path = self.cache / _cache.file_name(stem, content)
        path.write_bytes(content)
        path.chmod(0o700)
        return path


def ended(process: subprocess.Popen) -> str:
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    return out.strip()


def wait_until(holds):
    stop = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < stop
        time.sleep(0.02)


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> bytes:
    """A library that answers 66."""
    folder = tmp_path_factory.mktemp("planted")
    code, made = folder / "answer.c", folder / "answer.so"
    code.write_text(CODE)
    compiler = [*_build._compilers()[0], "-DANSWER=66", "-shared", "-fPIC"]
    subprocess.run([*compiler, code, "-o", made], check=True)
    return made.read_bytes()


# Many processes


TOGETHER = """
import time
Path(sys.argv[1] + f".{os.getpid()}").touch()
while not Path(sys.argv[1] + ".go").exists():
    time.sleep(0.01)
"""
NO_LOCKS = """
import fcntl
def flock(*_):
    raise OSError(37, "No locks available")
fcntl.flock = flock
"""


def builds_together(home: Home, count: int, before: str) -> int:
    """How often the compiler ran."""
    slow = home.compiler("slow", before=f"echo x >> {home.folder}/runs; sleep 1")
    processes = [home.start(before + TOGETHER, CC=slow) for _ in range(count)]
    wait_until(lambda: len(list(home.folder.glob("answer.c.*"))) == count)
    Path(f"{home.code}.go").touch()
    assert [ended(process) for process in processes] == ["42"] * count
    assert len(home.libraries()) == 1
    return (home.folder / "runs").read_text().count("x")


def test_many_processes_build_once(home):
    assert builds_together(home, 6, before="") == 1


def test_without_locks_each_builds(home):
    assert builds_together(home, 3, before=NO_LOCKS) > 1  # also the control of the test above


def test_who_waits_for_too_long_goes_on(home):
    home.cache.mkdir(mode=0o700, parents=True)
    impatient = "\nalone = _cache.alone\n_cache.alone = lambda folder, _: alone(folder, 0.2)"
    with _cache.alone(home.cache, 1):
        assert home.answer(impatient) == "42"


# Damage


def cut_off(path: Path):
    path.write_bytes(path.read_bytes()[:5000])


def emptied(path: Path):
    path.write_bytes(b"")


def changed(path: Path):
    path.write_bytes(path.read_bytes().replace(b"answer", b"ANSWER"))


def unreadable(path: Path):
    path.unlink()
    path.symlink_to("/nowhere")


@pytest.mark.parametrize("damage", [cut_off, emptied, changed, unreadable])
def test_a_damaged_library_is_built_again(home, damage):
    assert home.answer() == "42"
    [path] = home.libraries()
    whole = path.read_bytes()
    damage(path)
    assert home.answer() == "42"
    assert [path.read_bytes() for path in home.libraries()] == [whole]


def test_a_library_that_is_cut_off_must_not_be_loaded(planted, tmp_path):
    """A control: the system itself does not see it."""
    path = tmp_path / "answer.so"
    path.write_bytes(planted[:5000])
    done = subprocess.run(
        [sys.executable, "-c", f"import ctypes; ctypes.CDLL({str(path)!r})"], capture_output=True
    )
    assert done.returncode != 0


# Trust


def test_what_is_the_users_own_is_loaded(home, planted):
    """A control of those below: it is a library that is found."""
    home.plant(planted)
    assert home.answer() == "66"


def open_to_all(path: Path):
    path.parent.chmod(0o777)


def open_to_a_group(path: Path):
    path.parent.chmod(0o770)


def file_open_to_all(path: Path):
    path.chmod(0o777)


def parent_open_to_all(path: Path):
    path.parent.parent.chmod(0o777)


def link_in_place(path: Path):
    path.rename(path.parent.parent / "elsewhere.so")
    path.symlink_to(path.parent.parent / "elsewhere.so")


def folder_of_another(path: Path):
    os.chown(path.parent, OTHER, OTHER)


def file_of_another(path: Path):
    os.chown(path, OTHER, OTHER)


def link_of_another(path: Path):
    path.parent.rename(path.parent.parent / "elsewhere")
    path.parent.symlink_to(path.parent.parent / "elsewhere")
    os.chown(path.parent, OTHER, OTHER, follow_symlinks=False)


@pytest.mark.parametrize(
    "unsafe",
    [
        open_to_all,
        open_to_a_group,
        file_open_to_all,
        parent_open_to_all,
        link_in_place,
        *(
            pytest.param(unsafe, marks=needs_root)
            for unsafe in (folder_of_another, file_of_another, link_of_another)
        ),
    ],
)
def test_what_others_could_have_put_there_is_not_loaded(home, planted, unsafe):
    unsafe(home.plant(planted))
    assert home.answer() == "42"
    assert home.answer(CC="false", PATH="/nowhere") == "42"  # it was built where it is safe


def test_a_link_of_the_users_own_is_followed(home, planted):
    path = home.plant(planted)
    path.parent.rename(home.folder / "elsewhere")
    path.parent.symlink_to(home.folder / "elsewhere")
    assert home.answer() == "66"


def test_what_is_built_is_closed_whatever_new_files_are(home):
    assert home.answer("\nos.umask(0)") == "42"
    assert home.answer(PATH="/nowhere") == "42"


@needs_root
def test_a_user_needs_no_name():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = Home(folder)
        for path in (folder, home.temporary):
            path.chmod(0o755)
            os.chown(path, OTHER, OTHER)
        del home.environment["XDG_CACHE_HOME"]
        other = ("setpriv", f"--reuid={OTHER}", "--clear-groups")
        try:
            ended(home.start("\nsys.exit()", other))
        except (AssertionError, OSError) as error:
            pytest.skip(f"other users cannot run Python here: {error}")
        without_home = "\ndel os.environ['HOME']"
        assert home.answer(without_home, other) == "42"
        kept = [path.parent.relative_to(folder) for path in home.libraries()]
        assert kept == [Path(f"temporary/braintrace-{OTHER}")]
        assert home.libraries()[0].stat().st_uid == OTHER


def test_without_a_cache_the_temporary_directory_serves(home):
    assert home.answer(XDG_CACHE_HOME="/dev/null/x", HOME="/dev/null") == "42"
    [path] = home.libraries()
    assert path.parent == home.temporary / f"braintrace-{os.geteuid()}"


def test_without_any_directory_it_is_said(home):
    nowhere = "\n_cache.places = lambda: [Path('/dev/null/x')]"
    process = home.start(nowhere)
    assert "BuildError: [Errno 17] File exists: '/dev/null'" in process.communicate()[1]


# Compilers


@pytest.mark.parametrize(
    "chosen, answer",
    [
        ("false", "42"),
        ("true", "42"),  # makes nothing
        ("cp /etc/passwd", "42"),
        ("/nowhere/cc", "42"),
        ("cc 'open", "42"),
        (" ", "42"),
        ("cc -DANSWER=43", "43"),
        ("{folder}/my compiler", "44"),
    ],
)
def test_the_users_choice_of_a_compiler(home, chosen, answer):
    home.compiler("my compiler", before='set -- "$@" -DANSWER=44')
    assert home.answer(CC=chosen.format(folder=home.folder)) == answer
    assert [path.parent for path in home.libraries()] == [home.cache]
    assert not list(home.cache.glob("building-*"))


def test_what_is_built_needs_no_compiler(home):
    assert home.answer(PATH="/nowhere") == "None"  # control
    assert home.answer() == "42"
    assert home.answer(PATH="/nowhere") == "42"
    home.code.write_text(CODE.replace("42", "45"))
    assert home.answer() == "45"  # of another source there is another library


def test_a_process_that_is_killed_leaves_no_obstacle(home):
    stuck = home.compiler("stuck", before=f"echo $$ > {home.folder}/pid; exec sleep 60")
    process = home.start(CC=stuck)
    pid = home.folder / "pid"
    wait_until(lambda: pid.exists() and pid.read_text().strip())
    process.kill()
    process.communicate()
    os.kill(int(pid.read_text()), signal.SIGKILL)
    [left] = home.cache.glob("building-*")
    impatient = "\nalone = _cache.alone\n_cache.alone = lambda folder, _: alone(folder, 1e9)"
    assert home.answer(impatient) == "42"
    assert left.exists()  # it might be in use
    home.libraries()[0].unlink()
    os.utime(left, (0, 0))
    assert home.answer() == "42"
    assert not left.exists()


# Executables of other processes


def operands() -> Operands:
    draw = np.random.default_rng(0).normal
    of = lambda *shape: np.asarray(draw(size=shape), np.float32)
    return Operands(of(3, 2), of(4, 1, 2), of(4, 3), (of(4, 3),), (of(4, 3, 2),))


AHEAD = """
import pickle, sys
import jax
{use}
compiled, of, wanted = pickle.loads(sys.stdin.buffer.read())
from jax.experimental import serialize_executable
gradient, _ = serialize_executable.deserialize_and_load(*compiled)(of)
assert abs(gradient - wanted).max() < 1e-5
print("right")
"""


@pytest.mark.skipif(not registered(), reason="there is no kernel here")
def test_an_executable_compiled_ahead_runs_in_another_process(tmp_path, users_environment):
    of = operands()
    program = jax.jit(lambda of: advance_and_contract(False, of)).lower(of)
    assert "braintrace_traces" in program.as_text()
    wanted = of.gradient + np.einsum("bo,boi->oi", of.signal[0], of.old[0])
    wanted += np.einsum("bo,bi->oi", of.now, of.x[:, 0])
    given = pickle.dumps((serialize_executable.serialize(program.compile()), of, wanted))

    def said(use, **environment):
        return subprocess.run(
            [sys.executable, "-c", AHEAD.format(use=use)],
            input=given,
            capture_output=True,
            env=users_environment | environment,
        )

    done = said("import braintrace")
    assert done.stdout == b"right\n", done.stderr.decode()
    places = {"XDG_CACHE_HOME": str(tmp_path / "a"), "TMPDIR": str(tmp_path)}
    without = said("import braintrace", **places)  # control: an import builds nothing
    assert without.returncode != 0 and b"braintrace_traces" in without.stderr
    assert list(tmp_path.iterdir()) == []


KEPT = """
import jax, pickle, sys
from braintrace.core.kernels import advance_and_contract
found = []
jax.monitoring.register_event_listener(lambda name, **_: found.append(name))
of = pickle.loads(sys.stdin.buffer.read())
print(float(jax.jit(lambda of: advance_and_contract(False, of)[0].sum())(of)))
print(found.count("/jax/compilation_cache/cache_hits"))
"""


@pytest.mark.skipif(not registered(), reason="there is no kernel here")
def test_an_executable_of_the_compilation_cache_runs_in_another_process(tmp_path):
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    first, second = (
        subprocess.run(
            [sys.executable, "-c", KEPT],
            input=pickle.dumps(operands()),
            capture_output=True,
            env=os.environ | settings,
            check=True,
        ).stdout.split()
        for _ in range(2)
    )
    assert first[0] == second[0]
    assert first[1] == b"0" and int(second[1]) >= 1
