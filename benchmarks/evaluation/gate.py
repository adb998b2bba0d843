"""Gate: which models it refuses, when it cannot tell, and what a long series of promotions can lose."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from scipy.special import expit, logit
from scipy.stats import norm

from churn_pipeline.costs import CostModel, contact_profit, contacts
from churn_pipeline.evaluation.comparison import Baseline, Comparison, compare, significantly_worse
from churn_pipeline.evaluation.gate import GateVerdict, evaluate_challenger
from churn_pipeline.evaluation.gate_settings import GateSettings
from churn_pipeline.evaluation.holdout import Holdout
from churn_pipeline.evaluation.predictions import row_log_loss

TITLE = "Gate"
Floats = npt.NDArray[np.float64]
SLOPES = 0.95 * np.array([1.0, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.0, 0.0])
VALUE, FLIPPED = 600, 0.1
GATE = GateSettings()
# Above this, coefficients are drawn from the normal distribution that estimates have on large samples
FITTED_ROWS = 20_000
SEQUENCES, PROMOTIONS, FORMER_SEQUENCES, JOBS = 200, 200, 20, 4
# Churners, step in margins, and whether each attempt has new customers
SERIES = ((400, 0.05, True), (400, 0.05, False), (70, 0.2, True))
# Number of the world, churners and repetitions
CELLS = (
    *((0, 25, 200), (0, 70, 200), (0, 400, 400), (0, 4000, 60)),
    *((1, 25, 200), (1, 70, 200), (1, 400, 100), (1, 4000, 20)),
)
# Margins at commit 5006d34: of the log loss, and of the profit as a share of the value
FORMER_MARGINS = 0.005, 0.0025


@dataclass(frozen=True)
class World:
    """Customers whose log-odds are linear in ten normal features.

    Attributes
    ----------
    share
        Churn share.
    costs
        The cost model.
    """

    share: float
    costs: CostModel

    @property
    def coefficients(self) -> Floats:
        """True intercept and slopes."""
        spread = np.random.default_rng(1).normal(size=400_000) * np.linalg.norm(SLOPES)
        low, high = -9.0, 3.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if expit(middle + spread).mean() < self.share else (low, middle)
        return np.concatenate(([low], SLOPES))


WORLDS = (
    World(0.11, CostModel(value=VALUE, offer_cost=50, contact_cost=5, acceptance=0.3)),
    World(0.018, CostModel(value=VALUE, offer_cost=5, contact_cost=1, acceptance=0.3)),
)


def draw(rng: np.random.Generator, n: int, true: Floats) -> tuple[Floats, Floats, Floats]:
    """Features, true churn probabilities and labels of n customers."""
    features = rng.normal(size=(n, SLOPES.size))
    truth = predict(features, true)
    return features, truth, (rng.random(n) < truth).astype(np.float64)


def predict(features: Floats, coefficients: Floats) -> Floats:
    """Churn probabilities."""
    return np.asarray(expit(coefficients[0] + features @ coefficients[1:]))


def fit(features: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """Logistic regression by Newton's method: coefficients, and the square root of their sandwich covariance."""
    design = np.column_stack((np.ones(len(features)), features))
    found = np.zeros(design.shape[1])
    found[0] = logit(labels.mean())
    for _ in range(8):
        p = expit(design @ found)
        bread = np.linalg.inv((design * (p * (1 - p))[:, None]).T @ design)
        found = found + bread @ (design.T @ (labels - p))
    scores = design * (labels - expit(design @ found))[:, None]
    return found, np.linalg.cholesky(bread @ (scores.T @ scores) @ bread)


class Trainer:
    """Trains models of one kind: on true labels, on labels of which a share is flipped, or on shuffled ones."""

    def __init__(self, true: Floats, rows: int, spoil: Callable[[np.random.Generator, Floats], Floats]) -> None:
        self.true, self.rows, self.spoil = true, rows, spoil
        if rows > FITTED_ROWS:
            rng = np.random.default_rng(2)
            features, _, labels = draw(rng, 400_000, true)
            self.limit, self.spread = fit(features, spoil(rng, labels))

    def __call__(self, rng: np.random.Generator) -> Floats:
        """Coefficients of a model that is trained on its own sample."""
        if self.rows > FITTED_ROWS:
            centre = self.true if self.spoil is honest else self.limit
            drawn: Floats = centre + self.spread @ rng.normal(size=self.true.size) * np.sqrt(400_000 / self.rows)
            return drawn
        features, _, labels = draw(rng, self.rows, self.true)
        return fit(features, self.spoil(rng, labels))[0]


def honest(_: np.random.Generator, labels: Floats) -> Floats:
    """The labels as they are."""
    return labels


def flipped(rng: np.random.Generator, labels: Floats) -> Floats:
    """Labels of which a share is flipped."""
    return np.asarray(np.where(rng.random(labels.size) < FLIPPED, 1 - labels, labels))


def shuffled(rng: np.random.Generator, labels: Floats) -> Floats:
    """Labels in random order."""
    return rng.permutation(labels)


def verdict(y: Floats, challenger: Floats, champion: Floats, world: World) -> GateVerdict:
    """The gate's verdict on a challenger of a champion that is the anchor too."""
    holdout = Holdout(y, challenger, np.full(y.size, VALUE))  # type: ignore[arg-type]
    return evaluate_challenger(
        holdout, [Baseline("champion and anchor", "1", champion)], world.costs, GATE, world.share
    )


def cell(world: World, churners: int, repetitions: int) -> str:
    """A row of the table of equal and faulty models."""
    true, n = world.coefficients, round(churners / world.share)
    train = {spoil: Trainer(true, 4 * n, spoil) for spoil in (honest, flipped, shuffled)}
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("equal", "odds", "shuffled", "noisy")}
    powers = []
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        features, _, y = draw(rng, n, true)
        champion, equal = (predict(features, train[honest](rng)) for _ in range(2))
        models = {
            "equal": equal,
            "odds": expit(logit(equal) + np.log(1.5)),
            "shuffled": predict(features, train[shuffled](rng)),
            "noisy": predict(features, train[flipped](rng)),
        }
        for name, p in models.items():
            found = verdict(y, p, champion, world)
            counts[name][_short(found)] += 1
            if name == "equal":
                powers.append(found.power or 0.0)

    def share(name: str, *results: str) -> str:
        return f"{100 * sum(counts[name][result] for result in results) / repetitions:.0f} %"

    equal_cells = [share("equal", "refused"), share("equal", "cannot tell"), f"{100 * np.median(powers):.0f} %"]
    faults = [f"{share(name, 'refused')}, {share(name, 'passed')}" for name in ("odds", "shuffled", "noisy")]
    return _row(f"{world.share:.1%}", f"{churners:,}", f"{n:,}", str(repetitions), *equal_cells, *faults)


def _short(found: GateVerdict) -> str:
    if found.passed:
        return "passed"
    return "cannot tell" if found.verdict == "cannot tell" else "refused"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


class Decline:
    """Challengers that are each a small step worse than the current champion, in a world with known probabilities.

    A step moves the model towards the best one without its most important feature, which is calibrated too. Each challenger
    has an error as if it had been trained on a sample of its own.
    """

    def __init__(self, churners: int, step: float, fresh: bool) -> None:
        world = WORLDS[0]
        self.world, self.n, self.fresh = world, round(churners / world.share), fresh
        self.true = world.coefficients
        rng = np.random.default_rng(3)
        features, self.truth, labels = draw(rng, 100_000, self.true)
        self.features = features
        self.noise = fit(features, labels)[1] * np.sqrt(100_000 / (4 * self.n))
        poor = np.insert(fit(features[:, 1:], labels)[0], 1, 0.0)
        self.towards = poor - self.true
        self.gain = self.loss(np.array([logit(world.share), *np.zeros(SLOPES.size)])) - self.loss(self.true)
        self.grid = np.linspace(0, 1, 101)
        self.losses = np.array([self.loss(self.true + at * self.towards) for at in self.grid]) - self.loss(self.true)
        self.step = step * GATE.log_loss_share * self.gain

    def loss(self, model: Floats) -> float:
        """True log loss of a model."""
        p = predict(self.features, model)
        return float(-(self.truth * np.log(p) + (1 - self.truth) * np.log(1 - p)).mean())

    def model(self, loss: float, rng: np.random.Generator) -> Floats:
        """A model whose log loss exceeds the best possible by `loss`, and by the error of its training."""
        at = np.interp(loss, self.losses, self.grid)
        return np.asarray(self.true + at * self.towards + self.noise @ rng.normal(size=self.true.size))

    def run(self, seed: int, gate: "Gate") -> tuple[float, int]:
        """Loss after all attempts in margins of the first champion, and the number of promotions."""
        rng = np.random.default_rng(seed)
        first = champion = anchor = self.model(0, rng)
        lost, promoted, attempt = 0.0, 0, 0
        features, _, y = draw(rng, self.n, self.true)
        for _ in range(PROMOTIONS):
            if self.fresh:
                features, _, y = draw(rng, self.n, self.true)
            challenger, attempt = self.model(lost + self.step, rng), attempt + 1
            holdout = Holdout(y, predict(features, challenger), np.full(self.n, VALUE))  # type: ignore[arg-type]
            baselines = [Baseline("anchor", "1", predict(features, anchor), attempt=attempt)]
            if anchor is not champion:
                baselines.append(Baseline("champion", "2", predict(features, champion)))
            passed, beats = gate(holdout, baselines, self.world)
            if passed:
                champion, lost, promoted = challenger, lost + self.step, promoted + 1
            if passed and beats:
                anchor, attempt = challenger, 0
        return (self.loss(champion) - self.loss(first)) / (GATE.log_loss_share * self.gain), promoted


Gate = Callable[[Holdout, list[Baseline], World], tuple[bool, bool]]


def _compared(holdout: Holdout, baselines: list[Baseline], world: World) -> Iterator[Comparison]:
    return (row for baseline in baselines for row in compare(holdout, baseline, world.costs, GATE, world.share))


def new_gate(holdout: Holdout, baselines: list[Baseline], world: World) -> tuple[bool, bool]:
    """Whether the challenger passes, and whether it beats the anchor."""
    rows = list(_compared(holdout, baselines, world))
    passed = all(row.within_margin for row in rows) and not significantly_worse(rows, GATE.error_rate / 2)
    return passed, rows[0].lower > 0


def former_gate(holdout: Holdout, baselines: list[Baseline], world: World) -> tuple[bool, bool]:
    """The rule of commit 5006d34 for log loss and profit: 95 % limits, the champion alone, absolute margins."""
    rows = list(_compared(holdout, baselines[-1:], world))
    margins = FORMER_MARGINS[0], FORMER_MARGINS[1] * VALUE
    lower = [row.difference - 1.96 * row.standard_error for row in rows]
    return all(limit >= -margin for limit, margin in zip(lower, margins, strict=True)), False


def series(churners: int, step: float, fresh: bool) -> str:
    """A row of the table of series."""
    decline = Decline(churners, step, fresh)
    former = np.array([decline.run(seed, former_gate) for seed in range(FORMER_SEQUENCES)])
    now = np.array([decline.run(seed, new_gate) for seed in range(SEQUENCES)])
    cells = [
        f"{(runs[:, 0] <= 1).mean():.0%}, median {np.median(runs[:, 0]):.2f}, highest {runs[:, 0].max():.2f}"
        for runs in (former, now)
    ]
    return _row(f"{churners:,}", f"{step:g}", "new" if fresh else "the same", *cells, f"{now[:, 1].mean():.1f}")


def coverage(churners: int, repetitions: int = 200, resamples: int = 200) -> str:
    """A row of the table of limits: how often the true difference lies below each lower limit (nominal: 5 %)."""
    world = WORLDS[0]
    true, n = world.coefficients, round(churners / world.share)
    train, missed = Trainer(true, 4 * n, honest), np.zeros((2, 2))
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        features, truth, y = draw(rng, n, true)
        models = [predict(features, train(rng)) for _ in range(2)]
        for metric, (rows, expected) in enumerate(_differences(y, truth, *models, world)):
            limit = rows.mean() - norm.ppf(0.95) * rows.std(ddof=1) / np.sqrt(n)
            drawn = rows[rng.integers(n, size=(resamples, n))].mean(axis=1)
            missed[metric] += [limit > expected, np.quantile(drawn, 0.05) > expected]
    return _row(f"{churners:,}", *(f"{share:.1%}" for share in (missed / repetitions).ravel()))


def _differences(y: Floats, truth: Floats, p: Floats, q: Floats, world: World) -> Iterator[tuple[Floats, float]]:
    """Differences of log loss and profit between two models, and their expectation over the labels of these customers."""
    ones, zeros = np.ones(y.size, dtype=np.int64), np.zeros(y.size, dtype=np.int64)

    def losses(labels: npt.NDArray[np.int64]) -> Floats:
        return row_log_loss(labels, q) - row_log_loss(labels, p)

    def profits(labels: npt.NDArray[np.int64]) -> Floats:
        chosen = contacts(p, VALUE, world.costs).astype(float) - contacts(q, VALUE, world.costs)
        return np.asarray(chosen * contact_profit(labels, VALUE, world.costs))

    for of in (losses, profits):
        yield of(y.astype(np.int64)), float((truth * of(ones) + (1 - truth) * of(zeros)).mean())


def measure() -> str:
    """Measure everything; about four minutes of processor time."""
    slowest_first = Parallel(n_jobs=JOBS)(
        [
            *(delayed(series)(*case) for case in SERIES),
            *(delayed(cell)(WORLDS[world], churners, times) for world, churners, times in reversed(CELLS)),
            *(delayed(coverage)(churners) for churners in (25, 70, 400)),
        ]
    )
    chains = slowest_first[: len(SERIES)]
    cells, limits = slowest_first[len(SERIES) :][: len(CELLS)][::-1], slowest_first[-3:]
    return "\n".join(
        [
            "Simulated customers with ten normal features and known churn probabilities; all models are logistic regressions that "
            "are trained on samples of four times the hold-out's size. Seeds 0, 1, 2, ….",
            "",
            "### Before, at commit 5006d34",
            "",
            "| case | repetitions | verdicts |",
            "|---|---|---|",
            "| 14,000 rows, 11 % churn, true log loss 0.0026 higher | 30 | 29 *no worse*, 1 *unclear* |",
            "| 14,000 rows, 11 % churn, true log loss 0.0030 higher | 30 | 25 *no worse*, 5 *unclear* |",
            "| 14,000 rows, 1.8 % churn, odds × 1.5 | 30 | 30 *no worse* |",
            "| 1,500 rows, equal models trained on 1,500 rows each | 40 | 26 *unclear*, 12 *no worse*, 2 *better* |",
            "| 1,500 rows, equal models trained on 6,000 rows each | 40 | 3 *unclear*, 34 *no worse*, 3 *better* |",
            "| equal models, 25 churners, 11 % churn | 40 | 28 *unclear*, 12 *refused* |",
            "| equal models, 70 churners, 11 % churn | 40 | 28 *unclear*, 12 *no worse* |",
            "| equal models, 400 churners, 11 % churn | 40 | 37 *no worse*, 3 *better* |",
            "| odds × 1.5, 25 churners, 1.8 % churn | 30 | 14 *refused*, 13 *no worse*, 3 *unclear* |",
            "| odds × 1.5, 70 and 400 churners, 1.8 % churn | 60 | 60 *no worse* |",
            "| odds × 1.5, 4,000 churners, 1.8 % churn | 10 | 10 *no worse* |",
            "",
            "### Now: equal and faulty challengers",
            "",
            "*Power* is the median of what the gate states. *Refused* is *refused* or *worse*; each fault has the shares refused and "
            f"passed, the rest is *cannot tell*. Noisy: {FLIPPED:.0%} of the training labels flipped. Above {FITTED_ROWS:,} training "
            "rows, coefficients are drawn from their normal distribution.",
            "",
            "| churn | churners | rows | repetitions | equal: refused | equal: cannot tell | power | odds × 1.5: refused, passed "
            "| shuffled | noisy |",
            f"|{'---|' * 10}",
            *cells,
            "",
            "### A slow decline",
            "",
            f"{SEQUENCES} series of {PROMOTIONS} attempts ({FORMER_SEQUENCES} series with the former rule). Each challenger is a step "
            "worse than the current champion, in shares of one margin of log loss. Share of series whose total loss stays within one "
            "margin, and the loss in margins.",
            "",
            "| churners | step | hold-out | before: within one margin | now: within one margin | promotions now |",
            f"|{'---|' * 6}",
            *chains,
            "",
            "### Normal and bootstrap limits",
            "",
            "How often the true difference of two equal models lies below the lower 90 % limit (nominal: 5 %); 200 repetitions, 200 "
            "resamples, 11 % churn.",
            "",
            "| churners | log loss: normal | log loss: bootstrap | profit: normal | profit: bootstrap |",
            f"|{'---|' * 5}",
            *limits,
        ]
    )
