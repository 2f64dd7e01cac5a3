"""A worker process: requests go out and replies come back, or the reason why none did."""

import json
import os
import queue
import subprocess
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


class Process:
    """`ask` returns the reply, a dict; with an 'error' in it when the worker failed, died or took
    longer than `patience`.
    """

    def __init__(self, python: Path, side: str, log: Path, patience: float = 240.0):
        self.python, self.side, self.log, self.patience = python, side, log, patience
        self.process: subprocess.Popen[str] | None = None

    def _start(self) -> subprocess.Popen[str]:
        environment = {
            k: v for k, v in os.environ.items() if k != "PYTHONPATH" or self.side == "ours"
        }
        with self.log.open("a") as log:
            process = subprocess.Popen(
                [str(self.python), "-m", "benchmarks.worker", self.side],
                cwd=ROOT,
                env=environment,
                text=True,
                bufsize=1,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._replies: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_read, args=(process.stdout, self._replies), daemon=True).start()
        return process

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """One request. A worker that is gone is started anew by the next one."""
        if self.process is None:
            self.process = self._start()
        assert self.process.stdin is not None
        try:
            print(json.dumps({"do": do, **arguments}), file=self.process.stdin, flush=True)
            line = self._replies.get(timeout=self.patience)
        except queue.Empty:
            self.close()
            return {"error": f"no reply within {self.patience:.0f} s"}
        except BrokenPipeError:
            line = ""
        if not line:
            self.close()
            return {"error": f"the process died; its last words: {_tail(self.log)}"}
        return json.loads(line)

    def close(self) -> None:
        """End the worker."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def _read(stream: Any, replies: "queue.Queue[str]") -> None:
    for line in stream:
        replies.put(line)
    replies.put("")


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "none"
