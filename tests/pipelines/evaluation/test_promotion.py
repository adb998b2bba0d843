"""Nodes of the gate: which versions are compared, and what is counted."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.customers import make_contract

from churn_pipeline.evaluation.gate_settings import GateSettings
from churn_pipeline.evaluation.holdout import Holdout
from churn_pipeline.evaluation.holdout_rule import HoldoutUse, holdout_rule
from churn_pipeline.evaluation.model_record import RegisteredVersion
from churn_pipeline.pipelines.data_engineering.splitting import SplitSettings
from churn_pipeline.pipelines.evaluation.promotion import apply_gate, describe_holdout_use, score_baselines

USE = HoldoutUse(rule="r", digest="rows", model="m3", contract="c")
COSTS = {"value": 500, "offer_cost": 30, "contact_cost": 2, "acceptance": 0.3}
rng = np.random.default_rng(0)
P = 1 / (1 + np.exp(-rng.normal(-1.6, 1.4, 900)))
Y = (rng.random(900) < P).astype(int)
FEATURES = pd.DataFrame({"p": P})


class Model:
    """Predicts a column of the features."""

    def __init__(self, column: str = "p") -> None:
        self.column = column

    def predict_proba(self, features: pd.DataFrame) -> np.ndarray:
        p = features[self.column].to_numpy()
        return np.column_stack((1 - p, p))


def version(number: int, model: Any = None, **tags: str) -> RegisteredVersion:
    return RegisteredVersion(
        name="churn_mine",
        version=str(number),
        created=datetime(2026, 1, 1, tzinfo=UTC),
        model=model or Model(),
        documents={},
        run_id="",
        tags={},
        metrics={},
        version_tags={"holdout_rule": "r", "contract_digest": "c", **tags},
    )


def test_one_version_is_compared_once() -> None:
    found = score_baselines(version(2), version(2), FEATURES, USE)
    assert [row.name for row in found.compared] == ["champion and anchor"]
    assert (found.champion, found.anchor) == ("2", "2")
    found = score_baselines(version(2), version(1), FEATURES, USE)
    assert [(row.name, row.version) for row in found.compared] == [("champion", "2"), ("anchor", "1")]
    assert score_baselines(None, None, FEATURES, USE).compared == ()


def test_a_champion_without_an_anchor_is_the_anchor() -> None:
    found = score_baselines(version(2), None, FEATURES, USE)
    assert ([row.name for row in found.compared], found.anchor) == (["champion and anchor"], "none")


def test_a_changed_contract_resets_the_anchor_and_says_so() -> None:
    found = score_baselines(version(2, contract_digest="old"), version(1, contract_digest="old"), FEATURES, USE)
    assert [row.name for row in found.compared] == ["champion"]
    assert "contract has changed since version 1, so the anchor is reset" in found.notes[0]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (version(2, holdout_rule="other"), "version 2) was trained when another rule decided who is held out"),
        (version(2, Model("renamed")), "version 2) cannot score these customers: 'renamed'"),
    ],
)
def test_a_version_that_cannot_be_compared_says_why(made: RegisteredVersion, said: str) -> None:
    [row] = score_baselines(made, made, FEATURES, USE).compared
    assert row.p is None
    assert said in row.problem


def test_distinct_models_are_counted_as_uses_and_attempts() -> None:
    def run(model: str, anchor: str = "1", **tags: str) -> dict[str, str]:
        return {"holdout_rule": "r", "digest.holdout": "rows", "model_digest": model, "gate.anchor": anchor, **tags}

    use = HoldoutUse(
        **{**vars(USE), "earlier": (run("m1"), run("m1"), run("m2", "0"), run("m4", **{"digest.holdout": "new"}))}
    )
    assert use.uses == 3  # m1, m2 and this run's m3
    assert use.attempts("1") == 3  # m1, m4 and m3: new rows do not start a new anchor
    assert use.attempts("0") == 2
    again = HoldoutUse(**{**vars(use), "model": "m1"})
    assert (again.uses, again.attempts("1")) == (2, 2)  # the same model a second time is no further chance
    scored = score_baselines(version(5), version(1), FEATURES, use)
    assert [(row.name, row.attempt) for row in scored.compared] == [("champion", 1), ("anchor", 3)]


def test_the_rule_depends_on_all_that_decides_who_is_held_out() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"key": ["other"]},
        {"customers": "each row"},
        {"share": 0.3},
        {"latest": 0.25},
        {"rotation": 1},
    ]
    rules = [
        holdout_rule(**{"key": ["id"], "customers": "id", "share": 0.2, "latest": None, "rotation": 0, **change})
        for change in changes
    ]
    assert len(set(rules)) == len(rules)
    contract, split = make_contract(), SplitSettings(holdout_share=0.2, holdout_latest=0.25, folds=5)
    report = {"digests": {"holdout": "rows", "contract": "c"}, "split": {"customers": {"rule": "id"}}}
    first = describe_holdout_use(contract, split, report, {"model_digest": "m"}, [])
    turned = describe_holdout_use(
        contract.model_copy(update={"holdout_rotation": 1}), split, report, {"model_digest": "m"}, []
    )
    assert first.rule != turned.rule
    assert (first.digest, first.model, first.contract, first.uses) == ("rows", "m", "c", 1)


def test_a_verdict_names_what_it_was_measured_against() -> None:
    baselines = score_baselines(version(2), version(1), FEATURES, USE)
    label = pd.DataFrame({"churned": Y})
    report, logged, tags = apply_gate(Holdout(Y, P, np.full(900, 500.0)), baselines, USE, label, COSTS, GateSettings())
    assert tags == {
        "gate": "no worse",
        "gate.champion": "2",
        "gate.anchor": "1",
        "holdout_rule": "r",
        "digest.holdout": "rows",
        "model_digest": "m3",
    }
    assert {"champion": "2", "anchor": "1", "holdout_rule": "r", "holdout_uses": 1}.items() <= report.items()
    assert "This hold-out has been used once." in report["notes"]
    assert logged["holdout_uses"] == 1
    assert np.isfinite(list(logged.values())).all()


def test_a_champion_of_another_rule_leaves_the_verdict_open() -> None:
    baselines = score_baselines(version(2, holdout_rule="old"), version(2, holdout_rule="old"), FEATURES, USE)
    label = pd.DataFrame({"churned": Y})
    report, _, tags = apply_gate(Holdout(Y, P, np.full(900, 500.0)), baselines, USE, label, COSTS, GateSettings())
    assert tags["gate"] == "cannot tell"
    assert "kedro rotate-holdout" in report["reasons"][0]
