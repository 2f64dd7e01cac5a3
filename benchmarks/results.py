"""Results as they come, in a JSON file, and the figures that tables, plots and targets are made
of.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np


class Results:
    """`data` is what the file holds: about, limits, cases (rows with seconds per step of each
    round), agreements, growth.
    """

    def __init__(self, folder: Path, name: str, resume: bool):
        self.folder, self.file = folder, folder / f"{name}.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.data: dict[str, Any] = (
            json.loads(self.file.read_text()) if resume and self.file.exists() else {}
        )
        for name in ("cases", "growth"):
            self.data.setdefault(name, {})

    @property
    def cases(self) -> dict[str, Any]:
        return self.data["cases"]

    def about(self, values: dict[str, Any]) -> None:
        """Machine and versions; those of the first part of a run that was continued are kept
        too.
        """
        self.data.setdefault("about", []).append(values)
        self.save()

    def put(self, name: str, value: Any) -> None:
        self.data[name] = value
        self.save()

    def save(self) -> None:
        """Replaces the file as a whole, so that an interruption leaves the last one."""
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(self.data, indent=1))
        new.replace(self.file)


def seconds(case: dict[str, Any], key: str) -> float | None:
    """Median seconds per step."""
    times = case["rows"].get(key, {}).get("seconds")
    return float(np.median(times)) if times else None


def ratio(case: dict[str, Any], key: str, over: str) -> tuple[float, float, float] | None:
    """Median and quartiles of the ratio of two methods' times, round by round."""
    a, b = (case["rows"].get(k, {}).get("seconds") for k in (key, over))
    if not a or not b:
        return None
    n = min(len(a), len(b))
    low, middle, high = np.percentile(np.array(a[:n]) / np.array(b[:n]), (25, 50, 75))
    return float(middle), float(low), float(high)


def value(case: dict[str, Any], key: str, field: str) -> Any:
    """A field of a row: first, peak, traces, steps; None where there is no such row."""
    return case["rows"].get(key, {}).get(field)
