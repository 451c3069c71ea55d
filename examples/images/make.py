"""Draws 200 small images of circles and squares: python make.py [DIRECTORY]."""

import os
import sys

import numpy as np

SIZE = 32


def draw(rng, kind):
    rows, columns = np.mgrid[:SIZE, :SIZE]
    centre, radius = rng.uniform(12, 20, 2), rng.uniform(5, 9)
    away = np.abs(rows - centre[0]), np.abs(columns - centre[1])
    inside = np.hypot(*away) < radius if kind == "circle" else np.maximum(*away) < radius
    return (inside * 200 + rng.integers(0, 56, (SIZE, SIZE))).astype(np.uint8)


def make(root, count=200):
    rng = np.random.default_rng(0)
    for number in range(count):
        kind = ("circle", "square")[number % 2]
        os.makedirs(os.path.join(root, kind), exist_ok=True)
        np.save(os.path.join(root, kind, f"{number:03d}.npy"), draw(rng, kind))


if __name__ == "__main__":
    make(sys.argv[1] if len(sys.argv) > 1 else "images")
