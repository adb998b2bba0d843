"""Complete draws: bytes, quirks, calibration, layouts, scenarios, validation of the configuration."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kedro.config import OmegaConfigLoader
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from sklearn.metrics import log_loss, roc_auc_score

from churn_pipeline.configuration import TableConfigLoader
from churn_pipeline.datasets.chunked_csv import ChunkedCSVDataset
from churn_pipeline.pipelines.simulation import create_pipeline
from churn_pipeline.pipelines.simulation.language import Identifier
from churn_pipeline.pipelines.simulation.nodes import simulate
from churn_pipeline.pipelines.simulation.population import BLOCK, identifiers
from churn_pipeline.pipelines.simulation.settings import Simulation, overlay

PROJECT = Path(__file__).parents[3]
SAMPLE = PROJECT / "data" / "01_raw"
Draw = tuple[pd.DataFrame, pd.DataFrame]


def load_parameters() -> dict[str, Any]:
    loader = OmegaConfigLoader(conf_source=str(PROJECT / "conf"), base_env="base", default_run_env="base")
    parameters: dict[str, Any] = loader["parameters"]["simulation"]
    return parameters


PARAMETERS = load_parameters()
SCENARIOS = list(PARAMETERS["scenarios"])


def simulation_of(**settings: Any) -> Simulation:
    return Simulation.model_validate({**PARAMETERS, **settings})


def draw(**settings: Any) -> Draw:
    customers, truth = zip(*simulate(simulation_of(**settings)), strict=True)
    return pd.concat(customers, ignore_index=True), pd.concat(truth, ignore_index=True)


MODEL = simulation_of().model
ID, LABEL, TRUTH = MODEL.identifier.column, MODEL.label.column, MODEL.truth_column
AGE, CHARGE, TOTAL, DATE = MODEL.age.column, MODEL.charge.column, MODEL.total.column, MODEL.date_column


@pytest.fixture(scope="module")
def base() -> Draw:
    """A snapshot large enough for shares and rates to settle."""
    return draw(rows=60_000)


@pytest.fixture(scope="module")
def monthly() -> Draw:
    return draw(rows=20_000, layout="monthly", months=6)


def left(customers: pd.DataFrame) -> pd.Series[int]:
    return (customers[LABEL] == MODEL.label.leaves).astype(int)


# ---- bytes ------------------------------------------------------------------------------------------------------


def run_pipeline(folder: Path, parameters: dict[str, Any] | Simulation) -> None:
    names = ("simulated_customers", "simulated_truth")
    files = {name: ChunkedCSVDataset(filepath=str(folder / f"{name}.csv")) for name in names}
    catalog = DataCatalog({**files, "params:simulation": MemoryDataset(parameters)})
    SequentialRunner().run(create_pipeline(), catalog)


@pytest.mark.parametrize("chunk_rows", [PARAMETERS["chunk_rows"], 777])
def test_committed_sample_is_redrawn_to_the_byte(tmp_path: Path, chunk_rows: int) -> None:
    run_pipeline(tmp_path, simulation_of(chunk_rows=chunk_rows))
    for name in ("simulated_customers.csv", "simulated_truth.csv"):
        assert (tmp_path / name).read_bytes() == (SAMPLE / name).read_bytes(), name


@pytest.mark.parametrize("chosen", ["default", "conf", "--params"])
def test_simulation_name_names_the_files_of_the_draw_and_of_its_table(tmp_path: Path, chosen: str) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(PROJECT / "conf" / "base", conf / "base")
    (conf / "local").mkdir()
    if chosen == "conf":
        (conf / "local" / "parameters_simulation.yml").write_text("simulation_name: large\n")
    runtime = {"simulation_name": "large"} if chosen == "--params" else {}
    loader = TableConfigLoader(str(conf), base_env="base", default_run_env="local", runtime_params=runtime)
    catalog, name = loader["catalog"], "simulated" if chosen == "default" else "large"
    drawn = [catalog[f"simulated_{part}"]["filepath"] for part in ("customers", "truth")]
    read = [catalog[entry]["dataset"]["filepath"] for entry in ("raw_customers", "truth")]
    assert drawn == read == [f"data/01_raw/{name}_{part}.csv" for part in ("customers", "truth")]


def test_smaller_draw_is_the_head_of_a_larger_one(base: Draw) -> None:
    for small, large in zip(draw(rows=12_345), base, strict=True):
        pd.testing.assert_frame_equal(small, large.head(12_345))


def test_seed_changes_rows_and_identifiers() -> None:
    (one, _), (other, _) = draw(rows=1000), draw(rows=1000, seed=1)
    assert not set(one[ID]) & set(other[ID])
    assert not one.drop(columns=ID).equals(other.drop(columns=ID))


@pytest.mark.parametrize("layout", ["snapshot", "monthly"])
def test_chunks_are_bounded_and_drawn_lazily(layout: str) -> None:
    chunks: Iterator[Draw] = simulate(simulation_of(rows=10_000_000, chunk_rows=2_500, layout=layout))
    sizes = [(len(customers), len(truth)) for (customers, truth), _ in zip(chunks, range(6), strict=False)]
    assert len(sizes) == 6
    assert all(customers == truth <= 2_500 for customers, truth in sizes)


def test_an_interrupted_run_leaves_the_previous_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_pipeline(tmp_path, simulation_of(rows=100))
    before = (tmp_path / "simulated_customers.csv").read_bytes()
    save, saved = ChunkedCSVDataset.save, []

    def fail_at_the_third(self: ChunkedCSVDataset, data: pd.DataFrame) -> None:
        saved.append(len(data))
        if len(saved) == 3:
            raise OSError("disk full")
        save(self, data)

    monkeypatch.setattr(ChunkedCSVDataset, "save", fail_at_the_third)
    with pytest.raises(OSError, match="disk full"):
        run_pipeline(tmp_path, simulation_of(rows=100, chunk_rows=10, seed=2))
    assert (tmp_path / "simulated_customers.csv").read_bytes() == before
    assert (tmp_path / "simulated_customers.csv.part").exists()


# ---- the table and its quirks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["none", "price_rise"])
def test_quirks_of_the_real_file(scenario: str) -> None:
    customers, truth = draw(rows=20_000, scenario=scenario)
    assert tuple(customers) == MODEL.columns
    assert list(truth) == [ID, TRUTH]
    new = customers[AGE] == 0
    assert 0.001 <= new.mean() <= 0.002
    assert ((customers[TOTAL] == " ") == new).all()
    assert (left(customers)[new] == 0).all()
    assert (truth[TRUTH][new] == 0).all()
    assert customers[AGE].between(0, MODEL.age.cap).all()
    assert set(customers["SeniorCitizen"]) == {0, 1}
    no_internet = customers["InternetService"] == "No"
    for service in (
        "OnlineSecurity",
        "OnlineBackup",
        "DeviceProtection",
        "TechSupport",
        "StreamingTV",
        "StreamingMovies",
    ):
        assert ((customers[service] == "No internet service") == no_internet).all()
    assert ((customers["MultipleLines"] == "No phone service") == (customers["PhoneService"] == "No")).all()
    assert (customers["InternetService"][customers["PhoneService"] == "No"] == "DSL").all()


def test_charges_are_cents_and_add_up(base: Draw) -> None:
    customers, _ = base
    billed = customers[customers[AGE] > 0]
    total = billed[TOTAL].astype(float)
    for amount in (customers[CHARGE], total):
        np.testing.assert_array_equal(amount, amount.round(2))
    months = total / billed[CHARGE]
    first = billed[AGE] == 1
    assert (total[first] == billed[CHARGE][first]).all()
    assert np.corrcoef(months, billed[AGE])[0, 1] > 0.99
    assert (months - billed[AGE]).abs().max() < 10
    assert (months - billed[AGE]).std() > 0.5  # the total is not simply their product


def test_shares_and_ages_are_plausible(base: Draw) -> None:
    customers, _ = base
    shares = {column: customers[column].value_counts(normalize=True) for column in MODEL.choices}
    # Shares in IBM's sample, rounded to a percent; those of the draw must be close.
    real: dict[str, dict[Any, float]] = {
        "SeniorCitizen": {1: 0.16}, "Partner": {"Yes": 0.48}, "Dependents": {"Yes": 0.30},
        "PhoneService": {"Yes": 0.90}, "InternetService": {"DSL": 0.34, "Fiber optic": 0.44, "No": 0.22},
        "TechSupport": {"Yes": 0.29},
        "Contract": {"Month-to-month": 0.55, "One year": 0.21, "Two year": 0.24}, "PaperlessBilling": {"Yes": 0.59},
        "PaymentMethod": {"Electronic check": 0.34, "Mailed check": 0.23}, "StreamingTV": {"Yes": 0.38},
    }  # fmt: skip
    for column, levels in real.items():
        for level, share in levels.items():
            assert shares[column][level] == pytest.approx(share, abs=0.03), (column, level)
    ages = customers[AGE].value_counts(normalize=True)
    assert 0.06 < ages[1] < 0.11
    assert 0.03 < ages[MODEL.age.cap] < 0.07
    assert ages.drop([0, 1, 2, MODEL.age.cap]).max() < 0.035
    assert customers[CHARGE].mean() == pytest.approx(64.8, abs=3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**63), start=st.integers(0, 10_000_000 - 2_000))
def test_identifiers_are_unique_and_match_the_pattern(seed: int, start: int) -> None:
    near, far = np.arange(start, start + 1_000), np.arange(0, 10_000_000, 9_973)
    numbers = np.union1d(near, far)
    written = identifiers(MODEL.identifier, numbers, seed)
    assert len(np.unique(written)) == len(numbers)
    assert all(re.fullmatch(r"\d{4}-[A-Z]{5}", text) for text in written[:50])


def test_identifiers_are_a_permutation_of_all_identifiers_of_the_pattern() -> None:
    every = identifiers(Identifier(column="id", pattern="0A-0"), np.arange(2600), seed=3)
    assert len(set(every)) == 2600
    with pytest.raises(ValueError, match="too few for customer 2600"):
        identifiers(Identifier(column="id", pattern="0A-0"), np.arange(2601), seed=3)


# ---- the truth --------------------------------------------------------------------------------------------------


def test_best_possible_scores(base: Draw) -> None:
    customers, truth = base
    label, chance = left(customers), truth[TRUTH]
    assert 0.20 <= label.mean() <= 0.28
    assert 0.84 <= roc_auc_score(label, chance) <= 0.87
    assert 0.36 <= log_loss(label, chance) <= 0.40


@pytest.mark.parametrize("layout", ["snapshot", "monthly"])
def test_truth_is_calibrated(layout: str, base: Draw, monthly: Draw) -> None:
    customers, truth = base if layout == "snapshot" else monthly
    assert (customers[ID] == truth[ID]).all()
    chance = truth[TRUTH].to_numpy()
    np.testing.assert_array_equal(chance, chance.round(6))
    surplus = left(customers).to_numpy() - chance
    deciles = [np.ones(len(chance), dtype=bool), *(pd.qcut(chance, 10, labels=False) == n for n in range(10))]
    for rows in deciles:
        noise = np.sqrt((chance[rows] * (1 - chance[rows])).sum())
        assert abs(surplus[rows].sum()) < 4 * noise


def test_truth_is_a_function_of_the_row(base: Draw) -> None:
    customers, truth = base
    known = customers.drop(columns=[ID, TOTAL, LABEL])
    alike = truth[TRUTH].groupby([known[column] for column in known], observed=True).nunique()
    assert len(alike) < len(known), "no two rows are identical: the test checks nothing"
    assert alike.max() == 1


def test_hazard_has_interactions(base: Draw) -> None:
    customers, truth = base
    risk = np.log(-np.log1p(-truth[TRUTH].clip(1e-6, 1 - 1e-6)))
    fibre, monthly = customers["InternetService"] == "Fiber optic", customers["Contract"] == "Month-to-month"
    young = customers[AGE].between(1, 3)
    billed = fibre & (customers[AGE] > 0)
    free, bound = (
        risk[rows & young].mean() - risk[rows & ~young].mean() for rows in (billed & monthly, billed & ~monthly)
    )
    assert free > bound + 0.5


# ---- layouts ----------------------------------------------------------------------------------------------------


def test_monthly_snapshots(monthly: Draw) -> None:
    customers, truth = monthly
    assert list(customers)[:2] == list(truth)[:2] == [ID, DATE]
    assert list(truth) == [ID, DATE, TRUTH]
    assert tuple(customers.drop(columns=DATE)) == MODEL.columns
    assert customers[ID].nunique() == 20_000
    assert not customers.duplicated([ID, DATE]).any()
    dates = pd.to_datetime(customers[DATE].astype(str))
    assert dates.dt.is_month_end.all()
    assert dates.nunique() == 6
    assert str(dates.max().date()) == PARAMETERS["observation_date"]
    month = dates.dt.year * 12 + dates.dt.month
    same = customers[ID] == customers[ID].shift()
    assert (month.diff()[same] == 1).all(), "a customer is missing in a month between two others"
    grown = np.minimum(customers[AGE].shift() + 1, MODEL.age.cap)
    assert (customers[AGE] == grown)[same].all()
    leaves = left(customers)
    assert not (leaves.shift() == 1)[same].any(), "a customer came back"
    gone = customers[ID] != customers[ID].shift(-1)
    assert (gone == ((leaves == 1) | (dates == dates.max()))).all()
    joined = ~same & (month > month.min())
    assert set(customers[AGE][joined]) == {0, 1}
    fixed = [column for column in MODEL.columns if column not in (AGE, TOTAL, LABEL)]
    assert not customers[fixed].drop_duplicates()[ID].duplicated().any()
    total = pd.to_numeric(customers[TOTAL], errors="coerce").fillna(0)
    assert (total.diff()[same] >= 0).all()


def test_dates_are_month_ends_in_leap_years_too() -> None:
    dates = simulation_of(layout="monthly", months=4, observation_date="2024-03-31").dates
    assert dates == ("2023-12-31", "2024-01-31", "2024-02-29", "2024-03-31")


# ---- scenarios --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_is_valid(scenario: str) -> None:
    simulation = simulation_of(scenario=scenario)
    assert Simulation.model_validate(simulation.model_dump()) == simulation, (
        "merging a scenario twice changed the model"
    )
    assert (simulation.model == MODEL) == (scenario == "none")


def test_price_rise(base: Draw) -> None:
    customers, truth = draw(rows=60_000, scenario="price_rise")
    assert customers[CHARGE].mean() == pytest.approx(1.15 * base[0][CHARGE].mean(), rel=0.03)
    assert truth[TRUTH].mean() > base[1][TRUTH].mean() + 0.01
    assert list(customers) == list(base[0])


def test_new_product(base: Draw) -> None:
    customers, _ = draw(rows=20_000, scenario="new_product")
    column = "InternetService"
    new = set(customers[column]) - set(base[0][column])
    assert new == {"Fiber 5G"}
    assert 0.10 < customers[column].isin(new).mean() < 0.35
    assert customers[CHARGE][customers[column].isin(new)].mean() > customers[CHARGE].mean()


@pytest.mark.parametrize(
    ("scenario", "column", "breaks"),
    [
        ("broken_column", CHARGE, lambda sound: (sound * 100).round(2)),
        (
            "blank_column",
            "PaymentMethod",
            lambda sound: pd.Series([""] * len(sound), name=sound.name, dtype="category"),
        ),
    ],
)
def test_faults_break_one_column_and_nothing_else(
    scenario: str, column: str, breaks: Callable[[pd.Series[Any]], pd.Series[Any]]
) -> None:
    (sound, truth), (broken, same_truth) = draw(rows=3_000), draw(rows=3_000, scenario=scenario)
    pd.testing.assert_series_equal(broken[column], breaks(sound[column]))
    pd.testing.assert_frame_equal(broken.drop(columns=column), sound.drop(columns=column))
    pd.testing.assert_frame_equal(same_truth, truth)


# ---- the language -----------------------------------------------------------------------------------------------


CURVE = {"column": AGE, "points": {1: 1.0}}


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("scenario", "flood", "unknown scenario 'flood': choose one of"),
        ("rows", 0, "greater than or equal to 1"),
        ("observation_date", "2025-12-30", "not the last day of a month"),
        ("model/truth", "x", "Extra inputs are not permitted"),
        ("model/columns", ["gender"], "'columns' differs from the columns described"),
        ("model/choices/gender/shares/Female", 0.6, "sum to 1.11 instead of 1"),
        ("model/choices/gender/shares", {True: 0.5}, "put Yes and No in quotes"),
        (
            "model/choices/gender/cases/x",
            {"when": {"Contract": "One year"}, "shares": {"Male": 1}},
            "choices.gender.cases.x: 'Contract' is not one of the choices drawn before",
        ),
        ("model/hazard/effects/Contract", {"Ten year": 1}, r"'Contract' has no level \['Ten year'\]"),
        ("model/hazard/terms/x", {"add": 1, "curve": CURVE}, "needs either 'add' or 'curve'"),
        ("model/hazard/terms/x/curve", {**CURVE, "column": "gender"}, "a curve needs one of the columns"),
        ("model/hazard/terms/x/curve", {**CURVE, "points": {2: 1, 1: 1}}, "increasing order"),
        ("model/hazard/terms", {f"x{n}": {"curve": CURVE} for n in range(9)}, "at most 8 curves"),
        ("model/age/acquisition", {1: -1}, "have no negative number"),
        ("model/faults/gender", {"multiply": 2}, "'multiply' works for"),
        ("model/faults/hair", {"text": ""}, "unknown column 'hair'"),
        ("model/faults/gender", {}, "needs either 'text' or 'multiply'"),
    ],
)
def test_errors_say_what_to_fix(place: str, value: Any, message: str) -> None:
    for key in reversed(place.split("/")):
        value = {key: value}
    with pytest.raises(ValueError, match=message):
        Simulation.model_validate(overlay(PARAMETERS, value))


def test_missing_keys_are_reported() -> None:
    with pytest.raises(ValueError, match=r"model\n  Field required"):
        Simulation.model_validate({key: value for key, value in PARAMETERS.items() if key != "model"})


def test_a_customer_base_that_everybody_leaves_is_refused() -> None:
    deadly = overlay(PARAMETERS["model"], {"hazard": {"intercept": 9.0}, "age": {"acquisition": {1: 0, 12: 1}}})
    with pytest.raises(ValueError, match="lower the hazard"):
        draw(model=deadly, rows=BLOCK)


def test_the_code_contains_no_column_or_level_of_the_table() -> None:
    """Only the configuration contains names of the table's columns and levels."""
    columns = {*MODEL.columns, DATE, TRUTH}
    levels = {str(level) for levels in MODEL.levels.values() for level in levels if isinstance(level, str)}
    source = PROJECT / "src" / "churn_pipeline"
    files = [*(source / "pipelines" / "simulation").glob("*.py"), source / "datasets" / "chunked_csv.py"]
    assert len(files) >= 5
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert not {name for name in columns if re.search(rf"\b{name}\b", text)}, file
        constants = {node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)}
        assert not levels & constants, file
