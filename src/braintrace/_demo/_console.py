"""What the demo prints: progress and the final table."""

import importlib.util
import sys
from collections.abc import Sequence

from ..core.analysis import columns


def progress() -> "Lines":
    """A bar of rich on a terminal, a plain bar there without rich, and elsewhere a line for each
    run.
    """
    if not sys.stdout.isatty():
        return Lines()
    return RichBar() if importlib.util.find_spec("rich") else PlainBar()


class Lines:
    """One line for each run: `start` it, `show` each epoch, `finish` it with a line that stays."""

    def start(self, title: str, total: int) -> None:
        self._title = title

    def show(self, done: int, note: str) -> None:
        pass

    def finish(self, note: str) -> None:
        print(f"{self._title}  {note}", flush=True)


class PlainBar(Lines):
    """A bar that is drawn over itself."""

    WIDTH = 24

    def start(self, title: str, total: int) -> None:
        super().start(title, total)
        self._total = total
        self.show(0, "compiling")

    def show(self, done: int, note: str) -> None:
        filled = self.WIDTH * done // self._total
        self._draw(f"{self._title}  [{'#' * filled}{'.' * (self.WIDTH - filled)}]  {note}")

    def finish(self, note: str) -> None:
        self._draw("")
        super().finish(note)

    def _draw(self, line: str) -> None:
        print("\r\x1b[2K" + line, end="", flush=True)


class RichBar(Lines):
    """A bar of the rich package."""

    def start(self, title: str, total: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        super().start(title, total)
        note = TextColumn("{task.fields[note]}")
        columns = (TextColumn("{task.description}"), BarColumn(24), note)
        self._bar = Progress(*columns, transient=True)
        self._bar.start()
        self._task = self._bar.add_task(title, total=total, note="compiling")

    def show(self, done: int, note: str) -> None:
        self._bar.update(self._task, completed=done, note=note)

    def finish(self, note: str) -> None:
        self._bar.stop()
        super().finish(note)


def table(rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> str:
    """Rows with aligned columns, a rule below the first; the columns in `right` are aligned to the
    right.
    """
    widths = [max(len(str(row[k])) for row in rows) for k in range(len(rows[0]))]
    pad = lambda k, cell: str(cell).rjust(widths[k]) if k in right else str(cell)
    lines = columns([[pad(k, cell) for k, cell in enumerate(row)] for row in rows])
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
