"""Nodes of evaluation: hold-out metrics beside the best possible ones, a record without any customer, and a summary."""

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
from churn_pipeline.contract.example import example_customers
from churn_pipeline.contract.table import Contract
from churn_pipeline.contract.validation import validate_table
from churn_pipeline.modelling.candidates import Candidate
from churn_pipeline.pipelines.evaluation.nodes import (
    EvaluationSettings,
    draw_plots,
    evaluate,
    find_true_probabilities,
    predict,
    record_model,
    summarise,
    write_run_description,
)
from churn_pipeline.pipelines.modelling.nodes import fit

FIRST = {"verdict": "first", "reasons": []}
CONTRACT, DATED = make_contract(), make_contract(dated=True)
SETTINGS = EvaluationSettings(metrics=("auc", "log_loss"), resamples=100, importance_repeats=2, confidence_level=0.9)
NOBODY_KNOWS = pd.DataFrame({"probability": pd.Series(dtype="float64")})


@pytest.fixture(scope="module")
def holdout() -> pd.DataFrame:
    return validate_table(raw_customers(200), CONTRACT).customers


def truth_of(customers: pd.DataFrame, *key: str) -> pd.DataFrame:
    """Each customer's true probability, a number that names its row."""
    return customers[list(key or ("customer",))].assign(churn_probability=np.linspace(0.01, 0.99, len(customers)))


def predictions(holdout: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    churned = (holdout["churn"] == "Yes").astype("int64")
    noise = np.random.default_rng(seed).uniform(0, 0.6, len(holdout))
    return pd.DataFrame({"churned": churned, "probability": 0.2 + 0.2 * churned + noise})


def fitted(customers: pd.DataFrame, contract: Contract = CONTRACT) -> Any:
    candidate = Candidate.model_validate({"class": "sklearn.linear_model.LogisticRegression", "numeric": "scaled"})
    label = (customers["churn"] == "Yes").astype("int64").rename("churned").to_frame()
    return fit(model_inputs(customers, contract), label, candidate, contract, 1)


# ---- predictions and true probabilities -----------------------------------------------------------------------------


def test_predictions_are_the_probability_of_churn_beside_what_happened(holdout: pd.DataFrame) -> None:
    model, features = fitted(holdout), model_inputs(holdout, CONTRACT)
    label = (holdout["churn"] == "Yes").astype("int64").rename("churned").to_frame()
    made = predict(model, features, label)
    assert list(made) == ["churned", "probability"]
    assert made["churned"].equals(label["churned"])
    assert (made["probability"] == model.predict_proba(features)[:, list(model.classes_).index(1)]).all()
    assert list(label) == ["churned"]


def test_the_truth_is_joined_by_customer_in_the_order_of_the_holdout(holdout: pd.DataFrame) -> None:
    truth = truth_of(holdout)
    shuffled = pd.concat([truth, truth.assign(customer=truth["customer"] + "x", churn_probability=9.0)]).sample(
        frac=1, random_state=1
    )
    found = find_true_probabilities(holdout, shuffled, CONTRACT)
    assert list(found) == ["probability"]
    assert found["probability"].tolist() == truth["churn_probability"].tolist()


def test_the_truth_of_a_returning_customer_is_joined_by_date_too() -> None:
    raw = raw_customers(6, dated=True)
    raw["customer"] = ["A", "A", "B", "B", "C", "C"]
    raw["seen"] = ["2025-01-01", "2025-02-01"] * 3
    customers = validate_table(raw, DATED).customers
    truth = truth_of(customers, "customer", "seen").assign(seen=raw["seen"]).iloc[::-1]
    found = find_true_probabilities(customers, truth, DATED)
    assert found["probability"].tolist() == truth["churn_probability"].iloc[::-1].tolist()


def test_ids_are_matched_whatever_type_the_truth_was_read_as() -> None:
    content = table_file()
    content["columns"]["customer"] = {"dtype": "int64"}
    raw = raw_customers(5).assign(customer=["1", "2", "3", "4", "5"])
    customers = validate_table(raw, Contract.parse(content, "numbers")).customers
    truth = truth_of(customers).assign(customer=["1", "2", "3", "4", "5"])
    assert len(find_true_probabilities(customers, truth, Contract.parse(content, "numbers"))) == 5


def test_where_nobody_knows_there_are_no_rows(holdout: pd.DataFrame) -> None:
    assert len(find_true_probabilities(holdout, None, CONTRACT)) == 0


def test_a_truth_that_lacks_customers_or_columns_is_refused(holdout: pd.DataFrame) -> None:
    truth = truth_of(holdout)
    with pytest.raises(TableError, match="lacks held-out customers"):
        find_true_probabilities(holdout, truth.iloc[1:], CONTRACT)
    with pytest.raises(TableError, match="needs the columns customer"):
        find_true_probabilities(holdout, truth.drop(columns="customer"), CONTRACT)
    with pytest.raises(TableError, match="probability"):
        find_true_probabilities(holdout, truth.drop(columns="churn_probability"), CONTRACT)


def test_a_truth_that_names_a_customer_twice_is_refused(holdout: pd.DataFrame) -> None:
    truth = truth_of(holdout)
    with pytest.raises(ValueError, match=r"(?i)unique"):
        find_true_probabilities(holdout, pd.concat([truth, truth.head(1)]), CONTRACT)


# ---- evaluation -------------------------------------------------------------------------------------------------------


def test_metrics_have_intervals_and_the_best_that_is_reachable(holdout: pd.DataFrame) -> None:
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


def test_what_nobody_knows_is_not_logged(holdout: pd.DataFrame) -> None:
    metrics, logged = evaluate(predictions(holdout), NOBODY_KNOWS, holdout, CONTRACT, SETTINGS, seed=1)
    assert metrics["best_possible"].isna().all()
    assert set(logged) == {"auc", "auc_lower", "auc_upper", "log_loss", "log_loss_lower", "log_loss_upper"}
    assert all(np.isfinite(value) for value in logged.values())


def test_a_evaluation_is_the_same_for_the_same_seed(holdout: pd.DataFrame) -> None:
    made = predictions(holdout)
    one, same, other = (evaluate(made, NOBODY_KNOWS, holdout, CONTRACT, SETTINGS, seed)[0] for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, same)
    assert not one["lower"].equals(other["lower"])


def test_customers_and_not_their_rows_are_resampled_where_they_return() -> None:
    raw = raw_customers(200, dated=True)
    customers = validate_table(raw, DATED).customers
    returning = customers.assign(customer=[f"C{row // 20}" for row in range(200)])
    made = predictions(customers)
    made["churned"] = [int(row // 20 % 2) for row in range(200)]
    widths = []
    for rows in (customers, returning):
        metrics, _ = evaluate(made, NOBODY_KNOWS, rows, DATED, SETTINGS, seed=1)
        widths.append(metrics["upper"] - metrics["lower"])
    assert (widths[0] != widths[1]).all()


def test_a_metric_of_the_users_own_is_evaluated_and_logged_by_its_name(holdout: pd.DataFrame) -> None:
    mine = "tests.pipelines.evaluation.test_nodes.share_above_half"
    settings = EvaluationSettings(metrics=(mine,), resamples=100, importance_repeats=2, confidence_level=0.9)
    _, logged = evaluate(predictions(holdout), NOBODY_KNOWS, holdout, CONTRACT, settings, seed=1)
    assert set(logged) == {"share_above_half", "share_above_half_lower", "share_above_half_upper"}


def share_above_half(y: np.ndarray, p: np.ndarray) -> float:
    return float((p > 0.5).mean())


share_above_half.greater_is_better = True  # type: ignore[attr-defined]


@pytest.mark.parametrize("known", [False, True])
def test_there_is_a_plot_for_each_view(holdout: pd.DataFrame, known: bool) -> None:
    true_probabilities = find_true_probabilities(holdout, truth_of(holdout) if known else None, CONTRACT)
    metrics, _ = evaluate(predictions(holdout), true_probabilities, holdout, CONTRACT, SETTINGS, seed=1)
    figures = draw_plots(predictions(holdout), true_probabilities, metrics)
    assert len(figures) == 4
    assert all(isinstance(figure, Figure) for figure in figures)
    for figure in figures:
        plt.close(figure)


# ---- record ----------------------------------------------------------------------------------------------------------


def test_a_record_holds_no_customers_value() -> None:
    raw = raw_customers(60).assign(
        age="77",
        months="313",
        charge="777.125",
        total="7654321",
        calls="31",
        plan="QQ",
        region="south",
        paperless="true",
        lines="3",
    )
    customers = validate_table(raw, CONTRACT).customers
    record = record_model(fitted(customers), CONTRACT, {"digests": {}}, {}, FIRST, "", {})
    inputs = model_inputs(customers, CONTRACT)
    for name in inputs:
        assert record.example[name].iloc[0] not in set(inputs[name]), name


def test_a_records_example_passes_the_contract() -> None:
    content = table_file()
    content["columns"]["plan"] = {"dtype": "str", "isin": ["AA", "QX", "ZZ"]}
    contract = Contract.parse(content, "customers")
    customers = validate_table(raw_customers(60), contract).customers
    example = record_model(fitted(customers, contract), contract, {"digests": {}}, {}, FIRST, "", {}).example
    as_raw = example_customers(contract).assign(**example)
    held = validate_table(as_raw, contract)
    assert held.quarantine.empty
    pd.testing.assert_frame_equal(model_inputs(held.customers, contract), example)


def test_the_records_example_fits_its_signature_and_its_model(holdout: pd.DataFrame) -> None:
    record = record_model(fitted(holdout), CONTRACT, {"digests": {}}, {}, FIRST, "", {})
    inputs = record.signature.inputs
    assert inputs.input_names() == list(record.example) == [*CONTRACT.numeric, *CONTRACT.categorical]
    assert [str(kind) for kind in inputs.input_types()] == ["DataType.double"] * len(CONTRACT.numeric) + [
        "DataType.string"
    ] * len(CONTRACT.categorical)
    assert record.model.predict_proba(record.example).shape == (1, 2)


def test_the_record_names_table_model_and_data(holdout: pd.DataFrame) -> None:
    record = record_model(
        fitted(holdout),
        CONTRACT,
        {"digests": {"data": "d", "contract": "c"}},
        {"candidate": "logistic", "model_digest": "m"},
        FIRST,
        "# The card",
        {"rows": 200},
    )
    assert dict(record.documents) == {"model_card.md": "# The card", "training_profile.json": '{"rows": 200}'}
    assert record.metadata == {
        "table": "customers",
        "gate": "first",
        "candidate": "logistic",
        "model_digest": "m",
        "data_digest": "d",
        "contract_digest": "c",
    }


# ---- summary ---------------------------------------------------------------------------------------------------------


def summary(holdout: pd.DataFrame, suspects: list[str], known: bool = False) -> str:
    report = {
        "rows": {"in": 1205, "valid": 1203, "quarantined": 2},
        "split": {
            "train": {"rows": 1000, "churn_share": 0.265},
            "hold-out": {"rows": 200, "churn_share": 0.27},
            "set_aside": {"twin": 1, "late": 2},
        },
        "leaks": {"suspects": suspects, "auc": {"plan": 0.987, "months": 0.6}},
    }
    leaderboard = pd.DataFrame(
        {
            "candidate": ["splines", "logistic"],
            "log_loss": [0.41, 0.42],
            "auc": [0.85, 0.84],
            "log_loss_se": [0.01, 0.01],
            "fit_seconds": [1.0, 2.0],
        }
    )
    choice = {"candidate": "splines", "rule": "lowest cross-validated log loss", "log_loss": 0.41}
    true_probabilities = find_true_probabilities(holdout, truth_of(holdout) if known else None, CONTRACT)
    settings = EvaluationSettings(
        metrics=("auc", "log_loss"), resamples=100, importance_repeats=2, confidence_level=0.95
    )
    metrics, _ = evaluate(predictions(holdout), true_probabilities, holdout, CONTRACT, settings, seed=1)
    profit = pd.DataFrame({"metric": ["profit", "empc"], "value": [4.2, 5.0], "lower": [3.0, 4.0], "upper": [5.0, 6.0]})
    gate = {"verdict": "first", "reasons": ["There is no champion to compare with."]}
    return summarise(report, leaderboard, choice, metrics, profit, gate, CONTRACT, settings)


def test_a_summary_accounts_for_rows_candidates_and_metrics(holdout: pd.DataFrame) -> None:
    said = summary(holdout, [], known=True)
    assert "1,205 rows in = 1,203 valid + 2 quarantined" in said
    assert "1,000 to train on, 200 held out, 3 set aside" in said
    assert "churn 26.5%" in said
    assert said.index("splines") < said.index("logistic")
    assert "Chosen: splines (rule: lowest cross-validated log loss)" in said
    assert "Evaluated on 200 held-out customers, with 95% bootstrap intervals" in said
    lines = [line for line in said.splitlines() if line.startswith("  auc")]
    assert len(lines) == 1
    assert "[" in lines[0]
    assert "best possible" in lines[0]
    assert "LEAK" not in said


def test_a_note_says_in_a_few_lines_what_the_run_came_to(holdout: pd.DataFrame) -> None:
    split = {"train": {"rows": 1000, "churn_share": 0.265}, "hold-out": {"rows": 200, "churn_share": 0.27}}
    report = {"table": "customers", "split": split}
    metrics, _ = evaluate(predictions(holdout), NOBODY_KNOWS, holdout, CONTRACT, SETTINGS, seed=1)
    profit = pd.DataFrame({"metric": ["profit", "empc"], "value": [4.2, 5.0], "lower": [3.0, 4.0], "upper": [5.0, 6.0]})
    blend = {"members": [{"candidate": "splines", "weight": 0.25}, {"candidate": "forest", "weight": 0.75}]}
    single = {"members": [{"candidate": "splines", "weight": 1.0}]}
    gate = {"verdict": "no worse"}
    said = write_run_description(report, blend, metrics, profit, gate, SETTINGS)
    assert said.startswith("Blend of `splines` 25%, `forest` 75%. Gate: **no worse**.")
    assert (
        f"| auc | {metrics.loc[0, 'value']:.4f} | {metrics.loc[0, 'lower']:.4f} to {metrics.loc[0, 'upper']:.4f} |"
        in said
    )
    assert "| profit | 4.2000 | 3.0000 to 5.0000 |" in said
    assert "empc" not in said
    assert "Trained on 1,000 customers of table `customers`, of whom 26.5% churned" in said
    assert write_run_description(report, single, metrics, profit, gate, SETTINGS).startswith("Chosen: `splines`. Gate")


def test_a_summary_cries_out_about_leaks(holdout: pd.DataFrame) -> None:
    said = summary(holdout, ["plan"])
    assert "!! LIKELY LEAK: plan (AUC 0.987)" in said
    assert "roles.ignored" in said
    assert "best possible" not in said
