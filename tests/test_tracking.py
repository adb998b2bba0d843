"""How runs and their parameters are called in MLflow."""

from datetime import datetime

import pytest
from pydantic import BaseModel

from churn_pipeline.tracking import flat, run_name

BEGAN = datetime(2026, 5, 4, 13, 7)


class Settings(BaseModel):
    names: tuple[str, ...] = ("auc", "brier")
    limit: float | None = None
    inner: dict[str, dict[str, float]] = {"C": {"low": 0.1}}
    empty: str = ""


@pytest.mark.parametrize(
    ("pipelines", "tags", "name"),
    [
        ("['training']", {}, "telco training · 2026-05-04 13:07"),
        ("['training']", {"candidate": "splines"}, "splines · telco training · 2026-05-04 13:07"),
        ("", {"candidate": "a+b+c"}, "blend of 3 · telco training+packaging · 2026-05-04 13:07"),
        ("['packaging']", {"packaged.version": "7"}, "telco packaging of version 7 · 2026-05-04 13:07"),
        ("['training']", {"to_nodes": "splines.search"}, "telco a part · 2026-05-04 13:07"),
        ("['modelling', 'evaluation']", {}, "telco modelling+evaluation · 2026-05-04 13:07"),
    ],
)
def test_a_run_is_named_by_what_came_of_it(pipelines: str, tags: dict[str, str], name: str) -> None:
    assert run_name("telco", pipelines, BEGAN, tags) == name


def test_settings_are_one_parameter_each_and_nothing_that_is_not_set() -> None:
    assert dict(flat("choice", Settings())) == {"choice.names": "auc, brier", "choice.inner.C.low": "0.1"}
    assert dict(flat("seed", 5)) == {"seed": "5"}
    assert dict(flat("allowed", [])) == {}
    assert dict(flat("switch", False)) == {"switch": "False"}
