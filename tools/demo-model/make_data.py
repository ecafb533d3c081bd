"""Draw the training pictures once and keep them as one array of bytes.

    python make_data.py --work DIR [--count 32000]
"""

import argparse
import multiprocessing
from pathlib import Path

import numpy as np

from scene import SIZE, draw
from split import training_combinations, training_scene

ALLOWED = training_combinations()


def one(index):
    return draw(training_scene(index, ALLOWED))


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--work", type=Path, required=True)
    args.add_argument("--count", type=int, default=32000)
    args = args.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    target = args.work / "pictures.npy"
    part = args.work / "pictures.part.npy"
    pictures = np.lib.format.open_memmap(part, "w+", np.uint8, (args.count, SIZE, SIZE, 3))
    with multiprocessing.Pool() as pool:
        for i, picture in enumerate(pool.imap(one, range(args.count), 100)):
            pictures[i] = picture
    pictures.flush()
    part.rename(target)


if __name__ == "__main__":
    main()
