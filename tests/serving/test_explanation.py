"""Explanations: Shapley values, compared with an exact computation on the same background."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapiq import ExactComputer
from tests.serving.conftest import customers_of

from churn_pipeline.contract.cells import model_inputs
from churn_pipeline.serving.bundle import Bundle, TrainingProfile
from churn_pipeline.serving.explanation import RARE, Explainer, Levels, Numbers

Floats = npt.NDArray[np.float64]
Customers = tuple[Numbers | None, Levels | None]

NUMERIC, CATEGORICAL = ("months", "charge", "calls"), ("region", "plan", "contract")
LEVELS = {"north": 0.5, "south": 0.3, "": 0.1}


def make_training_profile(
    numeric: tuple[str, ...] = NUMERIC, categorical: tuple[str, ...] = CATEGORICAL
) -> TrainingProfile:
    """Numbers evenly from 0 to 1, a fifth of the last one missing; a tenth of the customers has rare levels."""
    quantiles = [step / 100 for step in range(101)]
    return TrainingProfile.model_validate(
        {
            "rows": 1000,
            "numeric": {name: {"quantiles": quantiles, "missing": 0.2 if name == "calls" else 0.0} for name in numeric},
            "categorical": {name: {"levels": LEVELS} for name in categorical},
            "probability": {"quantiles": quantiles},
        }
    )


def terms(numbers: Numbers | None, levels: Levels | None) -> list[Floats]:
    """Six features as numbers."""
    assert numbers is not None
    assert levels is not None
    known = np.nan_to_num(numbers.astype(np.float64), nan=2.0)
    return [
        *known.T,
        *(np.asarray(column == level, dtype=float) for column, level in zip(levels.T, LEVELS, strict=True)),
    ]


def in_pairs(numbers: Numbers | None, levels: Levels | None) -> Floats:
    """A model with interactions of two features only."""
    a, b, c, d, e, f = terms(numbers, levels)
    return np.asarray(0.1 + 0.2 * a + 0.1 * b * d + 0.05 * c * e - 0.1 * a * f + 0.1 * d * e)


def all_together(numbers: Numbers | None, levels: Levels | None) -> Floats:
    """A model in which all features interact."""
    a, b, c, d, e, f = terms(numbers, levels)
    return np.asarray(1 / (1 + np.exp(2 - 3 * a * (1 + d) + 2 * b - c * e + 2 * f * (a > 0.5) * (b > 0.3))))


class RecordingModel:
    """A model that records its first input, which is the background, and the number of calls."""

    def __init__(self, score: Callable[[Numbers | None, Levels | None], Floats]) -> None:
        self._score = score
        self.background: Customers = (None, None)
        self.calls = 0

    def __call__(self, numbers: Numbers | None, levels: Levels | None) -> Floats:
        if not self.calls:
            self.background = (numbers, levels)
        self.calls += 1
        return self._score(numbers, levels)


def exact(score: Callable[..., Floats], background: Customers, customer: tuple[Numbers, Levels]) -> Floats:
    """Exact Shapley values of one customer, over all subsets of features, with `shapiq`."""
    numbers, levels = background
    assert numbers is not None
    assert levels is not None
    width = numbers.shape[1] + levels.shape[1]

    def game(known: npt.NDArray[np.bool_]) -> Floats:
        values = []
        for one in known:
            own_numbers, own_levels = np.split(one, [numbers.shape[1]])
            mixed = np.where(own_numbers, customer[0], numbers), np.where(own_levels, customer[1], levels)
            values.append(score(*mixed).mean())
        return np.array(values)

    found = ExactComputer(game, n_players=width)("SV")
    return np.array([found[(place,)] for place in range(width)])


def some_customers(count: int, seed: int = 3) -> tuple[Numbers, Levels]:
    rng = np.random.default_rng(seed)
    numbers = rng.random((count, len(NUMERIC))).astype(np.float32)
    numbers[rng.random(numbers.shape) < 0.2] = np.nan
    return numbers, rng.choice(np.array([*LEVELS, "west"], dtype=object), (count, len(CATEGORICAL)))


def test_effects_are_exact_if_features_interact_only_in_pairs() -> None:
    model = RecordingModel(in_pairs)
    numbers, levels = some_customers(10)
    explainer = Explainer(model, NUMERIC, CATEGORICAL, make_training_profile(), pairs=8)
    _, effects = explainer.explain(numbers, levels)
    assert explainer.features == (*NUMERIC, *CATEGORICAL)
    for row in range(10):
        expected = exact(in_pairs, model.background, (numbers[row], levels[row]))
        np.testing.assert_allclose(effects[row], expected, atol=1e-12)
    assert np.abs(effects).max() > 0.1


def test_effects_are_close_to_exact_if_all_features_interact() -> None:
    model = RecordingModel(all_together)
    numbers, levels = some_customers(10)
    _, effects = Explainer(model, NUMERIC, CATEGORICAL, make_training_profile()).explain(numbers, levels)
    expected = np.array([exact(all_together, model.background, (numbers[row], levels[row])) for row in range(10)])
    assert np.abs(effects - expected).max() < 0.02
    assert np.sqrt(((effects - expected) ** 2).mean()) < 0.005


def test_more_pairs_make_smaller_errors() -> None:
    numbers, levels = some_customers(10)

    def spread(pairs: int) -> float:
        found = [
            Explainer(all_together, NUMERIC, CATEGORICAL, make_training_profile(), pairs, seed).explain(
                numbers, levels
            )[1]
            for seed in range(20)
        ]
        return float(np.std(found, axis=0).mean())

    assert spread(128) < spread(32) / 1.8 < spread(8) / 3


def test_the_standard_error_of_an_effect_is_a_hundredth_at_most() -> None:
    numbers, levels = some_customers(10)
    large = RecordingModel(all_together)
    Explainer(large, NUMERIC, CATEGORICAL, make_training_profile(), pairs=5_000)
    expected = np.array([exact(all_together, large.background, (numbers[row], levels[row])) for row in range(10)])
    found = [
        Explainer(all_together, NUMERIC, CATEGORICAL, make_training_profile(), seed=seed).explain(numbers, levels)[1]
        for seed in range(50)
    ]
    errors = np.sqrt(((np.array(found) - expected) ** 2).mean(axis=0))
    assert errors.mean() < 0.005
    assert errors.max() < 0.01
    assert np.abs(np.mean(found, axis=0) - expected).max() < 0.004


@pytest.mark.parametrize("model", [in_pairs, all_together])
def test_the_true_base_lies_within_two_standard_errors_95_times_of_100(model: Callable[..., Floats]) -> None:
    profile = make_training_profile()
    found = [Explainer(model, NUMERIC, CATEGORICAL, profile, pairs=16, seed=seed) for seed in range(200)]
    true_base = np.mean([explainer.base for explainer in found])
    off = np.array([abs(explainer.base - true_base) / explainer.base_standard_error for explainer in found])
    assert 0.9 <= (off <= 2).mean() <= 0.99


def test_a_constant_model_has_an_exact_base() -> None:
    def score(numbers: Numbers | None, _: Levels | None) -> Floats:
        return np.full(0 if numbers is None else len(numbers), 0.25)

    explainer = Explainer(score, NUMERIC, CATEGORICAL, make_training_profile())
    assert (explainer.base, explainer.base_standard_error) == (0.25, 0.0)


def test_the_onnx_model_is_explained(bundle: Bundle) -> None:
    def score(numbers: Numbers | None, levels: Levels | None) -> Floats:
        answer: Floats = bundle.session.run(None, {"numeric": numbers, "categorical": levels})[0]
        return answer

    model = RecordingModel(score)
    columns = bundle.numeric, bundle.categorical
    X = model_inputs(customers_of(bundle.contract, 300), bundle.contract).iloc[:100]
    numbers = X[list(columns[0])].to_numpy(np.float32)
    levels = X[list(columns[1])].to_numpy(object)
    base, effects = Explainer(model, *columns, bundle.training_profile).explain(numbers, levels)
    np.testing.assert_allclose(base + effects.sum(axis=1), score(numbers, levels), atol=1e-9)
    for row in range(3):
        expected = exact(score, model.background, (numbers[row], levels[row]))
        np.testing.assert_allclose(effects[row], expected, atol=0.01)
    months = columns[0].index("months")
    assert np.abs(effects[:, months]).mean() > 0.05


@settings(deadline=None, max_examples=50)
@given(
    rows=st.lists(
        st.tuples(
            st.tuples(*[st.floats(width=32, allow_infinity=False)] * 3),
            st.tuples(*[st.sampled_from([*LEVELS, RARE, "never seen"])] * 3),
        ),
        min_size=1,
        max_size=5,
    ),
    seed=st.integers(0, 2**32),
    pairs=st.integers(1, 20),
)
def test_base_and_effects_sum_to_the_probability(rows: list[Any], seed: int, pairs: int) -> None:
    numbers = np.array([row[0] for row in rows], dtype=np.float32)
    levels = np.array([row[1] for row in rows], dtype=object)

    def score(numbers: Numbers | None, levels: Levels | None) -> Floats:
        a, b, c, d, e, f = (np.clip(term, -5, 5) for term in terms(numbers, levels))
        return np.asarray(1 / (1 + np.exp(a * d - b * c + e * f)))

    explainer = Explainer(score, NUMERIC, CATEGORICAL, make_training_profile(), pairs=pairs, seed=seed)
    base, effects = explainer.explain(numbers, levels)
    assert base == explainer.base
    np.testing.assert_allclose(base + effects.sum(axis=1), score(numbers, levels), atol=1e-9)


def test_a_feature_that_the_model_ignores_has_no_effect_at_all() -> None:
    def score(numbers: Numbers | None, levels: Levels | None) -> Floats:
        a, _, c, d, *_ = terms(numbers, levels)
        return np.asarray(1 / (1 + np.exp(a * c - d)))

    _, effects = Explainer(score, NUMERIC, CATEGORICAL, make_training_profile()).explain(*some_customers(20))
    ignored = [1, 4, 5]
    assert (effects[:, ignored] == 0).all()
    assert (np.abs(np.delete(effects, ignored, axis=1)).max(axis=0) > 0.01).all()


def test_interchangeable_features_have_the_same_effect() -> None:
    def score(numbers: Numbers | None, levels: Levels | None) -> Floats:
        a, b, c, d, *_ = terms(numbers, levels)
        return np.asarray(1 / (1 + np.exp(1 - 3 * (a + b) * (1 + d) + c)))

    numbers, levels = some_customers(20)
    numbers[:, 1] = numbers[:, 0]
    _, effects = Explainer(score, NUMERIC, CATEGORICAL, make_training_profile(), pairs=1_000).explain(numbers, levels)
    assert np.abs(effects[:, 0] - effects[:, 1]).max() < 0.005
    assert np.abs(effects[:, 0]).max() > 0.1


def test_the_background_has_the_distributions_of_the_training_profile() -> None:
    model = RecordingModel(in_pairs)
    explainer = Explainer(model, NUMERIC, CATEGORICAL, make_training_profile(), pairs=1_010)
    numbers, levels = model.background
    assert numbers is not None
    assert levels is not None
    for column in numbers[:, :2].T:
        assert np.abs(np.sort(column) - np.repeat(np.arange(101) / 100, 10)).max() <= 0.011
    assert np.isnan(numbers[:, 2]).sum() == pytest.approx(202, abs=1)
    for column in levels.T:
        for level, share in {**LEVELS, RARE: 0.1}.items():
            assert (column == level).sum() == pytest.approx(share * 1_010, abs=1)
    together = np.corrcoef([numbers[:, 0], numbers[:, 1], levels[:, 0] == "north", levels[:, 1] == "north"])
    assert np.abs(together - np.eye(4)).max() < 0.15
    assert explainer.base == pytest.approx(in_pairs(numbers, levels).mean())


def test_a_number_without_known_values_is_missing_in_the_background() -> None:
    unknown = {"quantiles": [], "missing": 1.0}
    training_profile = make_training_profile().model_dump() | {"numeric": {"calls": unknown}}
    model = RecordingModel(lambda numbers, _: np.zeros(0) if numbers is None else np.isnan(numbers[:, 0]) / 2)
    explainer = Explainer(model, ("calls",), (), TrainingProfile.model_validate(training_profile))
    base, effects = explainer.explain(np.array([[1.0], [np.nan]], dtype=np.float32), None)
    assert base == 0.5
    assert effects.tolist() == [[-0.5], [0.0]]


def test_numbers_beyond_what_a_model_takes_are_limited() -> None:
    huge = {"quantiles": [-1e300] * 50 + [1e300] * 51, "missing": 0.0}
    training_profile = make_training_profile().model_dump() | {"numeric": {"charge": huge}}
    model = RecordingModel(lambda numbers, _: np.zeros(0 if numbers is None else len(numbers)))
    Explainer(model, ("charge",), (), TrainingProfile.model_validate(training_profile))
    assert model.background[0] is not None
    assert set(model.background[0][:, 0]) == {np.float32(-1e30), np.float32(1e30)}


def test_a_model_of_levels_alone_is_explained() -> None:
    def score(numbers: Numbers | None, levels: Levels | None) -> Floats:
        assert numbers is None
        assert levels is not None
        return np.asarray(np.where(levels[:, 0] == "north", 0.8, 0.2))

    explainer = Explainer(score, (), ("region", "plan"), make_training_profile())
    _, effects = explainer.explain(None, np.array([["north", "north"], ["west", "north"]], dtype=object))
    assert effects[:, 0] == pytest.approx([0.3, -0.3], abs=0.02)
    assert (effects[:, 1] == 0).all()


def test_an_explanation_is_deterministic_and_independent_of_other_rows() -> None:
    numbers, levels = some_customers(100)
    explainer = Explainer(all_together, NUMERIC, CATEGORICAL, make_training_profile())
    again = Explainer(all_together, NUMERIC, CATEGORICAL, make_training_profile())
    other = Explainer(all_together, NUMERIC, CATEGORICAL, make_training_profile(), seed=1)
    _, effects = explainer.explain(numbers, levels)
    assert (again.explain(numbers, levels)[1] == effects).all()
    assert (other.explain(numbers, levels)[1] != effects).any()
    for row in (0, 57, 99):
        _, alone = explainer.explain(numbers[row : row + 1], levels[row : row + 1])
        np.testing.assert_allclose(alone[0], effects[row], atol=1e-12)
    assert explainer.explain(numbers[:0], levels[:0])[1].shape == (0, 6)


def test_the_model_is_called_a_few_times_only() -> None:
    model = RecordingModel(all_together)
    explainer = Explainer(model, NUMERIC, CATEGORICAL, make_training_profile())
    assert model.calls == 2
    explainer.explain(*some_customers(1))
    assert model.calls == 4
    explainer.explain(*some_customers(100))
    assert model.calls <= 4 + 2 * 2
