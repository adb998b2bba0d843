"""Nodes of evaluation: predictions and true probabilities with their keys, and metrics matched by key."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score
from tests.customers import make_contract, raw_customers, table_file

from churn_pipeline.contract.cells import model_inputs
from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.table import Contract
from churn_pipeline.contract.validation import validate_table
from churn_pipeline.modelling.candidates import Candidate, build_candidate
from churn_pipeline.pipelines.evaluation.decision import join_holdout
from churn_pipeline.pipelines.evaluation.holdout_rows import holdout_keys
from churn_pipeline.pipelines.evaluation.nodes import (
    EvaluationSettings,
    draw_plots,
    evaluate,
    find_true_probabilities,
    predict,
)

CONTRACT, DATED = make_contract(), make_contract(dated=True)
SETTINGS = EvaluationSettings(metrics=("auc", "log_loss"), resamples=100, importance_repeats=2, confidence_level=0.9)
UNKNOWN = pd.DataFrame({"customer": pd.Series(dtype="str"), "probability": pd.Series(dtype="float64")})


@pytest.fixture(scope="module")
def holdout() -> pd.DataFrame:
    return validate_table(raw_customers(200), CONTRACT).customers


def truth_of(customers: pd.DataFrame, *key: str) -> pd.DataFrame:
    """True probabilities, different for each row."""
    return customers[list(key or ("customer",))].assign(churn_probability=np.linspace(0.01, 0.99, len(customers)))


def predictions(holdout: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    churned = (holdout["churn"] == "Yes").astype("int64")
    noise = np.random.default_rng(seed).uniform(0, 0.6, len(holdout))
    return holdout_keys(holdout, CONTRACT).assign(churned=churned, probability=0.2 + 0.2 * churned + noise)


def fitted(customers: pd.DataFrame, contract: Contract = CONTRACT) -> Any:
    candidate = Candidate.model_validate({"class": "sklearn.linear_model.LogisticRegression", "numeric": "scaled"})
    model = build_candidate(candidate, contract.numeric, contract.categorical, seed=1)
    return model.fit(model_inputs(customers, contract), (customers["churn"] == "Yes").astype("int64"))


# ---- predictions and true probabilities -----------------------------------------------------------------------------


def test_predictions_have_key_label_and_probability(holdout: pd.DataFrame) -> None:
    model, features = fitted(holdout), model_inputs(holdout, CONTRACT)
    label = (holdout["churn"] == "Yes").astype("int64").rename("churned").to_frame()
    made = predict(model, features, label, holdout, CONTRACT)
    assert list(made) == ["customer", "churned", "probability"]
    assert made["customer"].equals(holdout["customer"])
    assert made["churned"].equals(label["churned"])
    assert (made["probability"] == model.predict_proba(features)[:, list(model.classes_).index(1)]).all()
    assert list(label) == ["churned"]


def test_the_truth_is_joined_by_customer_in_the_order_of_the_holdout(holdout: pd.DataFrame) -> None:
    truth = truth_of(holdout)
    shuffled = pd.concat([truth, truth.assign(customer=truth["customer"] + "x", churn_probability=9.0)]).sample(
        frac=1, random_state=1
    )
    found = find_true_probabilities(holdout, shuffled, CONTRACT)
    assert list(found) == ["customer", "probability"]
    assert found["probability"].tolist() == truth["churn_probability"].tolist()


def test_the_truth_of_a_returning_customer_is_joined_by_date_too() -> None:
    raw = raw_customers(6, dated=True)
    raw["customer"] = ["A", "A", "B", "B", "C", "C"]
    raw["seen"] = ["2025-01-01", "2025-02-01"] * 3
    customers = validate_table(raw, DATED).customers
    truth = truth_of(customers, "customer", "seen").assign(seen=raw["seen"]).iloc[::-1]
    found = find_true_probabilities(customers, truth, DATED)
    assert found["probability"].tolist() == truth["churn_probability"].iloc[::-1].tolist()


def test_ids_are_matched_even_if_the_truth_has_another_dtype() -> None:
    content = table_file()
    content["columns"]["customer"] = {"dtype": "int64"}
    raw = raw_customers(5).assign(customer=["1", "2", "3", "4", "5"])
    customers = validate_table(raw, Contract.parse(content, "numbers")).customers
    truth = truth_of(customers).assign(customer=["1", "2", "3", "4", "5"])
    assert len(find_true_probabilities(customers, truth, Contract.parse(content, "numbers"))) == 5


def test_an_unknown_truth_has_no_rows(holdout: pd.DataFrame) -> None:
    unknown = find_true_probabilities(holdout, None, CONTRACT)
    pd.testing.assert_frame_equal(unknown, UNKNOWN, check_dtype=False, check_index_type=False)


def test_a_truth_without_some_customers_or_columns_is_refused(holdout: pd.DataFrame) -> None:
    truth = truth_of(holdout)
    with pytest.raises(TableError, match="lacks 1 of 200 held-out customers"):
        find_true_probabilities(holdout, truth.iloc[1:], CONTRACT)
    with pytest.raises(TableError, match="needs the columns customer"):
        find_true_probabilities(holdout, truth.drop(columns="customer"), CONTRACT)
    with pytest.raises(TableError, match="probability"):
        find_true_probabilities(holdout, truth.drop(columns="churn_probability"), CONTRACT)


def test_a_truth_that_names_a_customer_twice_is_refused(holdout: pd.DataFrame) -> None:
    truth = truth_of(holdout)
    with pytest.raises(ValueError, match="contains a row twice"):
        find_true_probabilities(holdout, pd.concat([truth, truth.head(1)]), CONTRACT)


# ---- evaluation -------------------------------------------------------------------------------------------------------


def test_metrics_have_intervals_and_the_best_possible_value(holdout: pd.DataFrame) -> None:
    made = predictions(holdout)
    true_probabilities = find_true_probabilities(holdout, truth_of(holdout), CONTRACT)
    metrics, logged = evaluate(made, true_probabilities, holdout, CONTRACT, SETTINGS, seed=1)
    assert metrics["metric"].tolist() == ["auc", "log_loss"]
    row = metrics.iloc[0]
    assert row["value"] == pytest.approx(roc_auc_score(made["churned"], made["probability"]))
    assert row["best_possible"] == pytest.approx(roc_auc_score(made["churned"], true_probabilities["probability"]))
    assert (metrics["lower"] < metrics["value"]).all()
    assert (metrics["value"] < metrics["upper"]).all()
    assert logged["auc"] == row["value"]
    assert logged["auc_lower"] == row["lower"]
    assert logged["log_loss_best_possible"] == metrics.loc[1, "best_possible"]
    assert len(logged) == 8


def test_unknown_values_are_not_logged(holdout: pd.DataFrame) -> None:
    metrics, logged = evaluate(predictions(holdout), UNKNOWN, holdout, CONTRACT, SETTINGS, seed=1)
    assert metrics["best_possible"].isna().all()
    assert set(logged) == {"auc", "auc_lower", "auc_upper", "log_loss", "log_loss_lower", "log_loss_upper"}
    assert all(np.isfinite(value) for value in logged.values())


def test_miscalibration_has_no_interval_but_what_chance_explains(holdout: pd.DataFrame) -> None:
    settings = SETTINGS.model_copy(update={"metrics": ("miscalibration", "calibration_slope")})
    made = predictions(holdout)
    metrics, logged = evaluate(made, UNKNOWN, holdout, CONTRACT, settings, seed=1)
    assert set(logged) == {
        "miscalibration",
        "miscalibration_by_chance",
        *(f"calibration_slope{ending}" for ending in ("", "_lower", "_upper")),
    }
    assert 0 < logged["miscalibration_by_chance"] < 1
    title = draw_plots(made, UNKNOWN, metrics, holdout, CONTRACT)[2].axes[0].get_title(loc="left")
    assert title.endswith(f"(up to {logged['miscalibration_by_chance']:.4f} by chance)")


def test_an_evaluation_is_the_same_for_the_same_seed(holdout: pd.DataFrame) -> None:
    made = predictions(holdout)
    one, same, other = (evaluate(made, UNKNOWN, holdout, CONTRACT, SETTINGS, seed)[0] for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, same)
    assert not one["lower"].equals(other["lower"])


def test_customers_with_several_rows_are_resampled_together() -> None:
    raw = raw_customers(200, dated=True)
    customers = validate_table(raw, DATED).customers
    customers["seen"] = pd.date_range("2025-01-01", periods=200)
    returning = customers.assign(customer=[f"C{row // 20}" for row in range(200)])
    churned = [int(row // 20 % 2) for row in range(200)]
    widths = []
    for rows in (customers, returning):
        made = holdout_keys(rows, DATED).assign(churned=churned, probability=predictions(customers)["probability"])
        groups = pd.DataFrame({"customer": pd.factorize(rows["customer"])[0]})
        metrics, _ = evaluate(made, UNKNOWN, rows, DATED, SETTINGS, seed=1, groups=groups)
        widths.append(metrics["upper"] - metrics["lower"])
    assert (widths[0] != widths[1]).all()


def test_a_users_metric_is_evaluated_and_logged_by_its_name(holdout: pd.DataFrame) -> None:
    mine = "tests.pipelines.evaluation.test_nodes.share_above_half"
    settings = EvaluationSettings(metrics=(mine,), resamples=100, importance_repeats=2, confidence_level=0.9)
    _, logged = evaluate(predictions(holdout), UNKNOWN, holdout, CONTRACT, settings, seed=1)
    assert set(logged) == {"share_above_half", "share_above_half_lower", "share_above_half_upper"}


def share_above_half(y: np.ndarray, p: np.ndarray) -> float:
    return float((p > 0.5).mean())


share_above_half.greater_is_better = True  # type: ignore[attr-defined]


def without_id() -> Contract:
    content = table_file()
    del content["columns"]["customer"]
    content["roles"].pop("id")
    return Contract.parse(content, "anonymous")


@pytest.mark.parametrize("contract", [CONTRACT, DATED, without_id()], ids=["id", "id and date", "row number"])
def test_shuffled_predictions_give_the_same_metrics(contract: Contract) -> None:
    raw = raw_customers(200, dated=contract is DATED)
    customers = validate_table(raw if contract.roles.id else raw.drop(columns="customer"), contract).customers
    rng = np.random.default_rng(0)
    made = holdout_keys(customers, contract).assign(churned=rng.integers(0, 2, 200), probability=rng.random(200))
    truth = holdout_keys(customers, contract).assign(probability=rng.random(200))
    assert contract.key or list(made) == ["row", "churned", "probability"]
    in_order, _ = evaluate(made, truth, customers, contract, SETTINGS, seed=1)
    shuffled, _ = evaluate(
        made.sample(frac=1, random_state=1), truth.sample(frac=1, random_state=2), customers, contract, SETTINGS, seed=1
    )
    pd.testing.assert_frame_equal(in_order, shuffled)

    costs = {"value": 10.0, "offer_cost": 1, "contact_cost": 1, "acceptance": 0.5}
    joined = join_holdout(made.sample(frac=1, random_state=1), customers, contract, costs)
    assert joined.y.tolist() == made["churned"].tolist()
    assert joined.p.tolist() == made["probability"].tolist()


def test_predictions_of_other_customers_are_refused(holdout: pd.DataFrame) -> None:
    made = predictions(holdout)
    with pytest.raises(TableError, match="lacks 2 of 200 held-out customers"):
        evaluate(made.iloc[2:], UNKNOWN, holdout, CONTRACT, SETTINGS, seed=1)
    with pytest.raises(TableError, match="contains a row twice, by customer"):
        evaluate(pd.concat([made, made.head(1)]), UNKNOWN, holdout, CONTRACT, SETTINGS, seed=1)
    with pytest.raises(TableError, match="lacks the key column customer"):
        evaluate(made.drop(columns="customer"), UNKNOWN, holdout, CONTRACT, SETTINGS, seed=1)


@pytest.mark.parametrize("known", [False, True])
def test_there_is_a_plot_for_each_view(holdout: pd.DataFrame, known: bool) -> None:
    true_probabilities = find_true_probabilities(holdout, truth_of(holdout) if known else None, CONTRACT)
    metrics, _ = evaluate(predictions(holdout), true_probabilities, holdout, CONTRACT, SETTINGS, seed=1)
    figures = draw_plots(predictions(holdout), true_probabilities, metrics, holdout, CONTRACT)
    assert len(figures) == 4
    assert all(isinstance(figure, Figure) for figure in figures)
    for figure in figures:
        plt.close(figure)
