"""The simulations behind calibration, decision threshold and intervals, and what evaluation costs.

Run from the repository root: `OPENBLAS_NUM_THREADS=1 python benchmarks/evaluation.py`, or with the
name of one table. The truth is simulated, so that what is lost against it is known exactly.

- `seconds`: evaluation, calibration with threshold, and exploration at the sizes of every day. They
  are CPU seconds, which a busy machine leaves alone; but on one, BLAS threads that wait for each
  other burn several times as many, so leave it one.
- `calibration`: which map `choose_calibration` takes on 3,600 rows, and what it loses, on 40,000
  fresh ones, against the true probabilities; beside it three other rules on the same folds.
- `threshold`: how often a rule leaves the theoretical threshold on 3,600 rows, and what its
  decisions cost more, on 50,000 fresh ones, than the best ones.
- `intervals`: share of samples whose interval held the true figure, which is taken from two million
  rows; and the mean calibration error of a model that is right.

All four take half a minute on a core of their own. Tables are Markdown; the docs quote them.
"""

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Callable

import numpy as np
import pandas as pd

from ml_assets.core.bundle import calibrated
from ml_assets.core.calibration import METHODS, Choice, choose_calibration, fit_calibration
from ml_assets.core.evaluation import Scored, evaluate
from ml_assets.core.exploration import explore
from ml_assets.core.gate import row_log_loss
from ml_assets.core.metrics import METRICS, bootstrap_metrics
from ml_assets.core.threshold import (
    Costs,
    choose_threshold,
    decide,
    row_costs,
    theoretical_threshold,
)

ROWS, FOLDS = 3_600, 5  # three days of calibration, and the folds of config/base.yaml
TRUTHS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # true log-odds, from the trees'
    "calibrated": lambda s: s,
    "true slope 0.93": lambda s: 0.93 * s,
    "true slope 0.85": lambda s: 0.85 * s,
    "true slope 0.7": lambda s: 0.7 * s,
    "shifted by 0.15": lambda s: s - 0.15,
    "a beta map (0.5, 1.5)": lambda s: 1.5 * np.logaddexp(0, s) - 0.5 * np.logaddexp(0, -s),
    "one step": lambda s: np.where(s < -2, -3.5, 0.5),
}
EXPONENTS = {  # a model's probability is the true one to this power
    "calibrated": 1.0,
    "promised somewhat too much: to the power 0.8": 0.8,
    "promised far too much: square root": 0.5,
}


def main() -> None:
    """Print one table, or all."""
    tables = {  # seconds first: it also times the import of scikit-learn
        "seconds": lambda _: seconds(),
        "calibration": lambda draws: calibration(draws or 30),
        "threshold": lambda draws: threshold(draws or 300),
        "intervals": lambda draws: intervals(draws or 400),
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", nargs="?", choices=[*tables, "all"], default="all")
    parser.add_argument("--draws", type=int, help="simulations; default: 30, 300 or 400")
    arguments = parser.parse_args()
    for name in tables if arguments.table == "all" else [arguments.table]:
        tables[name](arguments.draws)
        print(flush=True)


def seconds() -> None:
    """Time what every training does besides fitting trees."""
    generator = np.random.default_rng(0)
    costs = Costs(missed_claim=9, needless_referral=1)
    names = [f"c{place}" for place in range(5)]

    def part(rows: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
        log_odds = generator.normal(-2.3, 1.8, rows)
        codes = {name: generator.integers(0, 8, rows) for name in names}
        amounts = {f"x{place}": generator.normal(size=rows) for place in range(40)}
        return pd.DataFrame({**codes, **amounts}), 1.25 * log_odds, _drawn(generator, log_odds)

    print("| what | CPU s |")
    print("| --- | --- |")
    start = time.process_time()
    import sklearn.isotonic
    import sklearn.linear_model
    import sklearn.model_selection  # noqa: F401

    _took("import of scikit-learn", start)
    _, margin, outcome = part(ROWS)
    start = time.process_time()
    choice = choose_calibration(margin, outcome, folds=FOLDS, seed=0)
    chosen = choose_threshold(calibrated(margin, choice.calibration), outcome, costs)
    _took(f"calibration and threshold on {ROWS:,} rows", start)
    parts = {}
    for name, rows in (("train", 60_000), ("holdout", 5_000)):
        frame, margin, outcome = part(rows)
        parts[name] = Scored(frame, margin, calibrated(margin, choice.calibration), outcome)
    start = time.process_time()
    found = evaluate(
        parts,
        calibration=choice,
        threshold=chosen,
        costs=costs,
        importance=[],
        slices=dict.fromkeys(names),
        resamples=500,
        seed=0,
    )
    size = len(found.model_dump_json())
    _took(
        f"evaluation of 60,000 train and 5,000 holdout rows, {len(found.slices)} slices, "
        f"500 resamples of each: {size / 1000:.0f} kB of JSON",
        start,
    )
    frame = parts["train"].frame.assign(y=parts["train"].outcome)
    inputs = [name for name in frame if name != "y"]
    start = time.process_time()
    explore(frame, inputs=inputs, categorical=names, target="y")
    _took(f"exploration of 60,000 rows of {len(inputs)} columns", start)


def calibration(draws: int) -> None:
    """Which calibration is chosen, and its cost; costs are in 0.0001 nats."""
    print("| truth | chosen | cost | by the minimum | within 0.0003 | within one standard error |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, truth in TRUTHS.items():
        chosen: Counter[str] = Counter()
        costs = defaultdict(list)
        for seed in range(draws):
            generator = np.random.default_rng(seed)
            margin = generator.normal(-2.5, 2, ROWS + 40_000)
            outcome = _drawn(generator, truth(margin))
            seen, fresh = (margin[:ROWS], outcome[:ROWS]), margin[ROWS:]
            true = _sigmoid(truth(fresh))
            choice = choose_calibration(*seen, folds=FOLDS, seed=0)
            chosen[choice.calibration["method"]] += 1
            for rule, method in {
                "ours": choice.calibration["method"],
                **_other_rules(choice, *seen),
            }.items():
                said = calibrated(fresh, fit_calibration(method, *seen))
                costs[rule].append(_expected_log_loss(said, true) - _expected_log_loss(true, true))
        picks = ", ".join(f"{method} {count}" for method, count in chosen.most_common())
        means = " | ".join(f"{1e4 * np.mean(values):.1f}" for values in costs.values())
        print(f"| {name} | {picks} | {means} |", flush=True)


def _other_rules(choice: Choice, margin: np.ndarray, outcome: np.ndarray) -> dict[str, str]:
    """What other rules take, from the same folds: always the simplest method that is near."""
    from sklearn.model_selection import StratifiedKFold

    means = choice.cross_validated_log_loss
    unseen = {method: np.empty(len(margin)) for method in means}
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    for fitted, held_out in splitter.split(margin[:, np.newaxis], outcome):
        for method, losses in unseen.items():
            found = fit_calibration(method, margin[fitted], outcome[fitted])
            losses[held_out] = row_log_loss(calibrated(margin[held_out], found), outcome[held_out])
    best = min(means, key=lambda method: means[method])

    def simplest(allowed: Callable[[str], float]) -> str:
        return next(
            method
            for method in METHODS
            if method in means and means[method] - means[best] <= allowed(method)
        )

    return {
        "minimum": best,
        "0.0003": simplest(lambda _: 0.0003),
        "standard error": simplest(
            lambda method: (unseen[method] - unseen[best]).std() / np.sqrt(len(margin))
        ),
    }


def threshold(draws: int) -> None:
    """How often each rule leaves theory, and what its decisions cost."""
    costs = Costs(missed_claim=10, needless_referral=1)
    ideal = theoretical_threshold(costs)
    print("| probabilities | rule | leaves theory | costs more than the best |")
    print("| --- | --- | --- | --- |")
    for name, exponent in EXPONENTS.items():
        left: Counter[str] = Counter()
        excess = defaultdict(list)
        for seed in range(draws):
            generator = np.random.default_rng(seed)
            log_odds = generator.normal(-3, 2.2, ROWS)
            outcome = _drawn(generator, log_odds)
            said = _sigmoid(log_odds) ** exponent
            true = _sigmoid(generator.normal(-3, 2.2, 50_000))
            best = _expected_cost(decide(true, ideal), true, costs)
            for rule, taken in _thresholds(said, outcome, costs).items():
                left[rule] += taken != ideal
                cost = _expected_cost(decide(true**exponent, taken), true, costs)
                excess[rule].append(cost / best - 1)
        for rule, values in excess.items():
            print(f"| {name} | {rule} | {left[rule] / draws:.0%} | {np.mean(values):.2%} |")


def _thresholds(said: np.ndarray, outcome: np.ndarray, costs: Costs) -> dict[str, float]:
    ideal, chosen = theoretical_threshold(costs), choose_threshold(said, outcome, costs)
    cheapest, _ = min(chosen.curve, key=lambda point: (point[1], abs(point[0] - ideal)))
    ours, theirs = (row_costs(decide(said, each), outcome, costs) for each in (cheapest, ideal))
    saved = theirs - ours
    surely = saved.mean() > 1.64 * saved.std() / np.sqrt(len(saved))
    return {
        "theory": ideal,
        "the cheapest": cheapest,
        "the cheapest, if by 1.64 standard errors": cheapest if surely else ideal,
        "ours: by 2.33": chosen.threshold,
    }


def intervals(draws: int) -> None:
    """How often 95 % intervals hold the truth."""
    truth = bootstrap_metrics(*_sample(2_000_000, 999), threshold=0.1, resamples=1, seed=0)
    names = [name for name in METRICS if name != "calibration_error"]
    print(f"| rows | {' | '.join(names)} | mean calibration error |")
    print(f"|{' --- |' * (len(names) + 2)}")
    for rows in (200, 1_000, 5_000):
        held: Counter[str] = Counter()
        errors = []
        for seed in range(draws):
            found = bootstrap_metrics(*_sample(rows, seed), threshold=0.1, resamples=300, seed=0)
            for name in names:
                value, low, high = found[name]
                held[name] += value is not None and low <= truth[name][0] <= high
            errors.append(found["calibration_error"][0])
        shares = " | ".join(f"{held[name] / draws:.1%}" for name in names)
        print(f"| {rows:,} | {shares} | {np.mean(errors):.3f} |", flush=True)


def _sample(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True probabilities, and outcomes drawn from them."""
    generator = np.random.default_rng(seed)
    log_odds = generator.normal(-2.3, 1.8, rows)
    return _sigmoid(log_odds), _drawn(generator, log_odds)


def _drawn(generator: np.random.Generator, log_odds: np.ndarray) -> np.ndarray:
    return (generator.random(len(log_odds)) < _sigmoid(log_odds)).astype("int8")


def _sigmoid(log_odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-log_odds))


def _expected_log_loss(said: np.ndarray, true: np.ndarray) -> float:
    said = np.clip(said, 1e-15, 1 - 1e-15)
    return float(-(true * np.log(said) + (1 - true) * np.log1p(-said)).mean())


def _expected_cost(referred: np.ndarray, true: np.ndarray, costs: Costs) -> float:
    needless, missed = (1 - true) * costs.needless_referral, true * costs.missed_claim
    return float(np.where(referred, needless, missed).mean())


def _took(what: str, start: float) -> None:
    print(f"| {what} | {time.process_time() - start:.2f} |")


if __name__ == "__main__":
    main()
