"""Permutation importance: used features are found, unused ones have importance 0, and inputs are not modified."""

import numpy as np
import pandas as pd
import pytest
from sklearn.inspection import permutation_importance as sklearn_importance
from sklearn.linear_model import LogisticRegression

from churn_pipeline.evaluation.importance import ImportanceSettings, permutation_importance
from churn_pipeline.evaluation.predictions import Labels


def simulate(n: int, seed: int = 0) -> tuple[pd.DataFrame, Labels]:
    rng = np.random.default_rng(seed)
    x = pd.DataFrame(rng.normal(size=(n, 3)), columns=["strong", "weak", "unused"], index=np.arange(n) * 7)
    p = 1 / (1 + np.exp(-(-1.2 + 1.5 * x["strong"] + 0.5 * x["weak"])))
    return x, (rng.random(n) < p).to_numpy().astype(np.int64)


def predict(x: pd.DataFrame) -> np.ndarray:
    return (1 / (1 + np.exp(-(-1.2 + 1.5 * x["strong"] + 0.5 * x["weak"])))).to_numpy()


def test_used_features_are_found_in_order() -> None:
    table = permutation_importance(predict, *simulate(1000))
    assert table["feature"].tolist() == ["strong", "weak", "unused"]
    assert (table["lower"].iloc[:2] > 0).all()
    assert table.iloc[2][["importance", "lower", "upper"]].tolist() == [0, 0, 0]


def test_equal_to_scikit_learns_up_to_the_shuffles() -> None:
    x, y = simulate(1500)
    model = LogisticRegression().fit(x, y)
    ours = permutation_importance(
        lambda of: model.predict_proba(of)[:, 1], x, y, settings=ImportanceSettings(repeats=10)
    ).set_index("feature")
    theirs = sklearn_importance(model, x, y, scoring="neg_log_loss", n_repeats=10, random_state=0)
    assert ours.loc[list(x.columns), "importance"].to_numpy() == pytest.approx(theirs.importances_mean, abs=0.01)


def test_intervals_have_their_coverage() -> None:
    true = permutation_importance(
        predict, *simulate(100_000, 99), settings=ImportanceSettings(max_rows=100_000)
    ).set_index("feature")["importance"]
    held = []
    for seed in range(30):
        table = (
            permutation_importance(predict, *simulate(300, seed), settings=ImportanceSettings(seed=seed))
            .set_index("feature")
            .loc[true.index]
        )
        held.append((table["lower"] <= true) & (true <= table["upper"]))
    assert (pd.concat(held, axis=1).mean(axis=1) >= 0.8).all()


def test_rows_of_one_customer_are_not_independent() -> None:
    """Intervals of ten equal rows per customer are as wide as those of the customers, not a third as wide."""
    x, y = simulate(300)
    rows = np.repeat(np.arange(300), 10)
    width = {}
    for name, (of, labels, groups) in {
        "customers": (x, y, None),
        "rows": (x.iloc[rows], y[rows], None),
        "grouped": (x.iloc[rows], y[rows], rows),
    }.items():
        table = permutation_importance(predict, of, labels, settings=ImportanceSettings(repeats=20), groups=groups)
        width[name] = (table["upper"] - table["lower"]).iloc[0]
    assert width["grouped"] == pytest.approx(width["customers"], rel=0.15)
    assert width["rows"] < 0.5 * width["grouped"]


def test_importance_does_not_depend_on_other_columns_and_inputs_are_not_modified() -> None:
    x, y = simulate(200)
    before = x.copy()
    whole = permutation_importance(predict, x, y, settings=ImportanceSettings(seed=3)).set_index("feature")
    alone = permutation_importance(predict, x, y, columns=["weak"], settings=ImportanceSettings(seed=3)).set_index(
        "feature"
    )
    pd.testing.assert_frame_equal(alone, whole.loc[["weak"]])
    pd.testing.assert_frame_equal(x, before)
    other = permutation_importance(predict, x, y, settings=ImportanceSettings(seed=4)).set_index("feature")
    assert other.loc["weak", "importance"] != whole.loc["weak", "importance"]


def test_one_column_at_a_time_is_shuffled_and_keeps_its_dtype() -> None:
    x, y = simulate(100)
    x = x.assign(level=pd.Categorical(np.where(x["strong"] > 0, "a", "b")))
    seen: list[str] = []

    def watch(of: pd.DataFrame) -> np.ndarray:
        changed = [name for name in x if not of[name].equals(x[name])]
        assert len(changed) <= 1
        seen.extend(str(name) for name in changed)
        for name in changed:
            assert of[name].dtype == x[name].dtype
            assert sorted(of[name]) == sorted(x[name])
        return predict(of)

    permutation_importance(watch, x, y, settings=ImportanceSettings(repeats=2))
    assert seen == [name for name in x for _ in range(2)]


def test_each_column_has_its_own_shuffle() -> None:
    x, y = simulate(100)
    x = x.assign(twin=x["strong"])
    dealt: dict[str, np.ndarray] = {}

    def watch(of: pd.DataFrame) -> np.ndarray:
        dealt.update({name: of[name].to_numpy() for name in ("strong", "twin") if not of[name].equals(x[name])})
        return predict(of)

    permutation_importance(watch, x, y, columns=["strong", "twin"], settings=ImportanceSettings(repeats=1))
    assert (dealt["strong"] != dealt["twin"]).any()


def test_large_tables_are_sampled() -> None:
    x, y = simulate(2000)
    sizes = set()

    def watch(of: pd.DataFrame) -> np.ndarray:
        sizes.add(len(of))
        return predict(of)

    permutation_importance(watch, x, y, settings=ImportanceSettings(repeats=1, max_rows=150))
    assert sizes == {150}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": [0, 1]}, "50 customers and 2 labels"),
        ({"columns": ["strong", "age"]}, "no feature age. Use some of strong, weak, unused"),
        ({"predict": lambda x: np.full(len(x), 2.0)}, "outside"),
    ],
)
def test_bad_requests(change: dict[str, object], message: str) -> None:
    x, y = simulate(50)
    with pytest.raises(ValueError, match=message):
        permutation_importance(**({"predict": predict, "features": x, "y": y} | change))  # type: ignore[arg-type]
