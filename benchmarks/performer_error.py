"""How far FAVOR+ attention is from exact attention, by the number of random features and the length of the row.

    python benchmarks/performer_error.py
    python benchmarks/performer_error.py --features 64 256 --lengths 2048 --scale 1

Queries and keys are normal with standard deviation `--scale`, values are standard normal. The error is the
Frobenius norm of the difference over that of the exact answer, mean and standard deviation over `--draws` draws of the
directions. README.md tells how to read it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from models.favor import draw_directions, favor_attention


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--features", nargs="+", type=int, default=[16, 32, 64, 128, 256, 512])
    parser.add_argument("--lengths", nargs="+", type=int, default=[64, 256, 1024])
    parser.add_argument("--dim", type=int, default=32, help="dimensions of a head")
    parser.add_argument("--scale", type=float, default=0.5, help="standard deviation of queries and keys")
    parser.add_argument("--draws", type=int, default=10)
    arguments = parser.parse_args()
    print("| length | features | orthogonal | independent |\n|---|---|---|---|")
    for length in arguments.lengths:
        chance = np.random.default_rng(0)
        rows = chance.standard_normal((3, 1, 1, length, arguments.dim)).astype("float32")
        rows[:2] *= arguments.scale
        for count in arguments.features:
            found = [errors(rows, count, arguments.draws, orthogonal) for orthogonal in (True, False)]
            cells = " | ".join(f"{np.mean(one):.3f} ± {np.std(one):.3f}" for one in found)
            print(f"| {length:,} | {count} | {cells} |")


def errors(rows: np.ndarray, count: int, draws: int, orthogonal: bool) -> Sequence[float]:
    """The relative error of each draw."""
    queries, keys, values = rows
    exact = exact_attention(*(np.float64(one[0, 0]) for one in rows))
    mask = np.ones((1, queries.shape[2]), bool)
    chance = np.random.default_rng(1)
    drawn = []
    for _ in range(draws):
        directions = draw_directions(count, queries.shape[-1], chance, orthogonal=orthogonal)[None]
        estimate = np.asarray(favor_attention(queries, keys, values, mask, directions))[0, 0]
        drawn.append(float(np.linalg.norm(estimate - exact) / np.linalg.norm(exact)))
    return drawn


def exact_attention(queries: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    products = queries @ keys.T / queries.shape[-1] ** 0.5
    weights = np.exp(products - products.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True) @ values


if __name__ == "__main__":
    main()
