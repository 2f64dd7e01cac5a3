"""Make src/braintrace/tasks/data/japanese_vowels.npz from the published .ts files.

The files come with the Python package aeon:

    pip download --no-deps aeon --dest raw && unzip raw/aeon-*.whl -d raw
    python tools/make_japanese_vowels.py raw/aeon/datasets/data/JapaneseVowels

The same files give the same bytes.
"""

import argparse
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parents[1] / "src/braintrace/tasks/data/japanese_vowels.npz"
CHANNELS = 12


def read_ts(path: Path) -> dict[str, np.ndarray]:
    """Frames `(sum(length), 12)`, lengths and labels of one file.

    After the header a line is one utterance: the values of each channel joined by commas, the
    channels and at last the label joined by colons.
    """
    utterances, labels = [], []
    for line in path.read_text().splitlines():
        if not line.strip() or line[0] in "#@":
            continue
        *channels, label = line.split(":")
        utterance = np.array([channel.split(",") for channel in channels], np.float64).T
        if utterance.shape[1] != CHANNELS or not np.isfinite(utterance).all():
            raise ValueError(
                f"{path}: got an utterance of shape {utterance.shape} or with a number missing."
            )
        utterances.append(utterance)
        labels.append(int(label) - 1)
    return {
        "x": np.concatenate(utterances).astype(np.float32),
        "length": np.array([len(utterance) for utterance in utterances], np.int32),
        "label": np.array(labels, np.int32),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Make japanese_vowels.npz from the published .ts files."
    )
    parser.add_argument(
        "folder",
        type=Path,
        help="the folder with JapaneseVowels_TRAIN.ts and JapaneseVowels_TEST.ts",
    )
    parser.add_argument("--target", type=Path, default=TARGET)
    arguments = parser.parse_args()
    arrays = {
        f"{split}_{name}": array
        for split in ("train", "test")
        for name, array in read_ts(arguments.folder / f"JapaneseVowels_{split.upper()}.ts").items()
    }
    np.savez_compressed(arguments.target, **arrays)
    print(f"{arguments.target}: {arguments.target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
