"""Error rates and power of the promotion gate, by simulation, at the holdout sizes that we have.

Run from the repository root: `python benchmarks/gate.py`. In each trial both models see the same
rows; each one's log-odds are off by noise of its own. `cost` is what a model's noise costs in log
loss over a model without any, in nats a row: two models of equal cost are equally good. The share
of trials in which the challenger was promoted is an error where it is worse or equal, and power
where it is better.
"""

import argparse
import time

import numpy as np

from ml_assets.core.gate import Difference, decide, paired_bootstrap, row_log_loss
from ml_assets.environment import load_environment

SIZES = (1_200, 4_700, 14_000)  # a day, the four days of the default holdout, twelve days
CASES = (  # challenger's noise, champion's noise, champion's age in days
    ("equal, young champion", 0.4, 0.4, 1),
    ("equal, old champion", 0.4, 0.4, 7),
    ("worse by half the margin, old champion", 0.45, 0.4, 7),
    ("worse by the margin, old champion", 0.5, 0.4, 7),
    ("worse by one and a half margins, old champion", 0.55, 0.4, 7),
    ("much worse, young champion", 0.8, 0.4, 1),
    ("much worse, old champion", 0.8, 0.4, 7),
    ("better", 0.4, 0.8, 1),
)


def main() -> None:
    """Print a row per case and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=400)
    trials = parser.parse_args().trials
    print("| case | cost of challenger / champion | rows | promoted | naive rule |")
    print("| --- | --- | --- | --- | --- |")
    for name, challenger, champion, age in CASES:
        costs = " / ".join(f"{cost(noise):.4f}" for noise in (challenger, champion))
        for rows in SIZES:
            ours, naive = promoted(challenger, champion, age, rows, trials)
            print(f"| {name} | {costs} | {rows:,} | {ours:.1%} | {naive:.1%} |")
    generator = np.random.Generator(np.random.PCG64(0))
    sample = generator.random((3, 4_700))
    started = time.perf_counter()
    _compare(sample[0], sample[1], (sample[2] < 0.16).astype("int8"))
    print(f"One comparison of 4,700 rows took {time.perf_counter() - started:.2f} s.")


def promoted(
    challenger: float, champion: float, age: int, rows: int, trials: int
) -> tuple[float, float]:
    """Share of trials in which the gate, and the naive rule, promoted the challenger."""
    gate = load_environment("dev", environ={}).gate
    generator = np.random.Generator(np.random.PCG64(rows))
    ours = naive = 0
    for _ in range(trials):
        outcome, (first, second) = _draw(generator, rows, (challenger, champion))
        difference = _compare(first, second, outcome)
        naive += difference.mean <= 0
        ours += decide(
            difference,
            margin=gate.margin,
            champion_age_days=age,
            refresh_after_days=gate.refresh_after_days,
            challenger_version=2,
        ).promote
    return ours / trials, naive / trials


def cost(noise: float) -> float:
    """Log loss that noise of this size adds, on a million rows."""
    generator = np.random.Generator(np.random.PCG64(1))
    outcome, (noisy, exact) = _draw(generator, 1_000_000, (noise, 0.0))
    return float((row_log_loss(noisy, outcome) - row_log_loss(exact, outcome)).mean())


def _draw(
    generator: np.random.Generator, rows: int, noises: tuple[float, float]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Outcomes of rows that are about as hard as ours, and both models' probabilities."""
    log_odds = generator.normal(-3.6, 3.2, rows)
    outcome = (generator.random(rows) < 1 / (1 + np.exp(-log_odds))).astype("int8")
    seen = [log_odds + generator.normal(0, noise, rows) for noise in noises]
    return outcome, [1 / (1 + np.exp(-each)) for each in seen]


def _compare(first: np.ndarray, second: np.ndarray, outcome: np.ndarray) -> Difference:
    gate = load_environment("dev", environ={}).gate
    return paired_bootstrap(
        first, second, outcome, confidence=gate.confidence, resamples=gate.resamples, seed=0
    )


if __name__ == "__main__":
    main()
