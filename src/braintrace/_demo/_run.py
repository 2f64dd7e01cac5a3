"""The demo from end to end."""

import collections
import dataclasses
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from .._plots import Band, Panel, figure
from ..tasks import JapaneseVowels, japanese_vowels
from ._console import Lines, progress, table
from ._fidelity import Fidelity
from ._methods import Method
from ._networks import ALIF, GRU
from ._training import Recipe, Run, Trainer, new_weights, scorer

RECIPES = (
    Recipe("GRU", lambda: GRU(16), epochs=100, rate=0.01),
    Recipe("ALIF spiking", lambda: ALIF(16), epochs=100, rate=0.02),
)
LONGER = 100  # how many times longer is the long sequence whose memory is measured


@dataclasses.dataclass(frozen=True)
class Result:
    """What the runs of one network with one method gave."""

    trainer: Trainer
    runs: list[Run]
    memory: list[int | None]  # bytes, for the length of the data and for the long sequence


def run(out: Path, seeds: Sequence[int], quick: bool) -> None:
    """Train everything, print the table and save the figure."""
    start = time.perf_counter()
    data, bars = japanese_vowels(), progress()
    steps = data.train.x.shape[0]
    recipes = [dataclasses.replace(RECIPES[0], epochs=3)] if quick else list(RECIPES)
    seeds = list(seeds)[:1] if quick else list(seeds)
    print(
        f"Japanese Vowels: which of 9 men is speaking? {data.train.label.size} utterances to "
        f"learn from, {data.test.label.size} to test, {data.train.length.min()} to {steps} frames "
        f"of 6.4 ms.\nEach run: {recipes[0].epochs} epochs from new weights; seeds "
        f"{', '.join(map(str, seeds))}.\n"
    )
    results, panels = [], []
    for recipe in recipes:
        found, fidelity = _network(recipe, data, seeds, bars)
        results += found
        panels.append(_panel(recipe, found, fidelity))
    print("\n" + summary(results, steps) + "\n\n" + notes(results))
    figure(panels, out)
    print(f"\nFigure: {out}. Time: {time.perf_counter() - start:.0f} s.")


def _network(
    recipe: Recipe, data: JapaneseVowels, seeds: list[int], bars: Lines
) -> tuple[list[Result], dict[str, dict[str, float]]]:
    """All methods with one network, and the fidelity of the online gradient before and after
    learning.
    """
    score, steps = scorer(recipe, data.test), data.train.x.shape[0]

    def learnt(trainer: Trainer) -> Result:
        runs = []
        for k, seed in enumerate(seeds):
            bars.start(f"{recipe.name:12}  {trainer.method.value:14}  seed {seed}", recipe.epochs)
            if k == 0:
                trainer.warm_up(data.train)
            note = ""

            def show(epoch: int, loss: float, accuracy: float | None) -> None:
                nonlocal note
                if accuracy is not None:
                    note = f"test {100 * accuracy:5.1f} %"
                bars.show(epoch, f"loss {loss:.3f}  {note}")

            runs.append(trainer.run(data.train, seed, score, max(1, recipe.epochs // 25), show))
            bars.finish(f"loss {runs[-1].losses[-1]:.3f}  {note}  {runs[-1].seconds:5.1f} s")
        return Result(trainer, runs, [trainer.memory(n) for n in (steps, LONGER * steps)])

    trainers = {method: Trainer(recipe, method) for method in Method}
    results = [learnt(trainer) for trainer in trainers.values()]
    fidelity = Fidelity(trainers[Method.ONLINE], trainers[Method.BPTT])
    weights = {
        "before learning": new_weights(recipe, seeds[0]),
        "after learning": results[0].runs[0].weights,
    }
    return results, {when: fidelity.cosines(w, data.train, seeds[0]) for when, w in weights.items()}


def summary(results: Sequence[Result], steps: int) -> str:
    """The final table."""
    lengths = [f"{n} frames" for n in (steps, LONGER * steps)]
    rows = [("network", "method", "test accuracy", "(min-max)", "s/run", *lengths, "gradients")]
    for r in results:
        recipe, method = r.trainer.recipe, r.trainer.method.value
        found = [100 * run.accuracies[recipe.epochs] for run in r.runs]  # after the last epoch
        mean, spread = f"{statistics.mean(found):.1f} %", f"({min(found):.1f}-{max(found):.1f})"
        seconds = f"{statistics.mean(run.seconds for run in r.runs):.1f}"
        memory = ["unknown" if m is None else f"{m / 1e6:.1f} MB" for m in r.memory]
        kinds = collections.Counter(r.trainer.certificate.values())  # as they come
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        rows.append((recipe.name, method, mean, spread, seconds, *memory, counts))
    return table(rows, right=(2, 3, 4, 5, 6))


def notes(results: Sequence[Result]) -> str:
    """How to read the table."""
    batch = results[0].trainer.recipe.batch
    return (
        "test accuracy  mean over the seeds, after the last epoch\n"
        "s/run          training one seed, compilation not included\n"
        f"frames         temporary memory of the compiled training step for {batch} utterances of "
        "that many frames\n"
        "gradients      what the compiler certifies, array by array; an approximate gradient "
        "leaves out paths between neurons"
    )


def _panel(
    recipe: Recipe, results: Sequence[Result], fidelity: dict[str, dict[str, float]]
) -> Panel:
    epochs, kinds = list(range(1, recipe.epochs + 1)), results[0].trainer.certificate
    percent = lambda run: [100 * a for a in run.accuracies.values()]
    by_method = {r.trainer.method.value: r.runs for r in results}
    losses = {name: Band(epochs, [run.losses for run in runs]) for name, runs in by_method.items()}
    accuracies = {
        name: Band(list(runs[0].accuracies), [percent(run) for run in runs])
        for name, runs in by_method.items()
    }
    # brainstate keeps weight and bias of a layer in one state, called weight
    named = lambda name: f"{name.replace('.weight.', '.')} ({kinds[name]})"
    cosines = {
        when: {named(name): c for name, c in found.items()} for when, found in fidelity.items()
    }
    return Panel(recipe.name, losses, accuracies, cosines)
