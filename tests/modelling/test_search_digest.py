"""A change in anything that affects a trial's values or result starts a new study."""

import ast
import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

import churn_pipeline.modelling
from churn_pipeline.evaluation.metrics import brier, log_loss
from churn_pipeline.modelling.candidates import Candidate
from churn_pipeline.modelling.cross_validation import Task
from churn_pipeline.modelling.search import SearchSettings, digest, study_digest

PACKAGE = "churn_pipeline.modelling"
FOLDER = Path(churn_pipeline.modelling.__path__[0])


@pytest.fixture
def task() -> Task:
    rng = np.random.default_rng(0)
    features = pd.DataFrame({"x0": rng.normal(size=60), "x1": rng.normal(size=60), "kind": rng.choice(["a", "b"], 60)})
    part = np.arange(60) % 3
    folds = {f"fold_{k}": (part != k, part == k) for k in range(3)}
    churned = pd.Series(rng.integers(0, 2, 60), name="churned")
    return Task(features, churned, folds, ["x0", "x1"], ["kind"], log_loss, seed=3)


def candidate(**changes: Any) -> Candidate:
    block = {
        "class": "sklearn.linear_model.LogisticRegression",
        "numeric": "scaled",
        "arguments": {"C": 1.0},
        "space": {"arguments": {"C": {"low": 1e-4, "high": 100.0, "log": True}}},
    }
    return Candidate.model_validate({**block, **changes})


CHANGED_TASKS: dict[str, Callable[[Task], Task]] = {
    "a feature": lambda task: replace(task, features=task.features.assign(x0=task.features["x0"] + 1e-9)),
    "a dtype": lambda task: replace(task, features=task.features.astype({"x0": "float32"})),
    "labels": lambda task: replace(task, churned=1 - task.churned),
    "folds": lambda task: replace(task, folds={**task.folds, "fold_0": task.folds["fold_1"]}),
    "columns": lambda task: replace(task, numeric=["x0"]),
    "the loss": lambda task: replace(task, loss=brier),
    "the seed": lambda task: replace(task, seed=9),
    "the customers": lambda task: replace(task, groups=np.arange(60) // 2),
}
CHANGED_CANDIDATES: dict[str, dict[str, Any]] = {
    "an argument": {"arguments": {"C": 2.0}},
    "the space": {"space": {"arguments": {"C": {"low": 0.1, "high": 2.0}}}},
    "the preprocessing": {"numeric": "as_is"},
    "the class": {"class": "sklearn.svm.SVC", "arguments": {"C": 1.0, "probability": True}},
    "the copies": {"copies": 2},
    "the first trials": {"starts": [{"C": 3.0}]},
}
CHANGED_SETTINGS = [{"parallel_trials": 3}, {"startup_trials": 2}, {"pruning_deviations": None}]


@pytest.mark.parametrize("part", CHANGED_TASKS)
def test_another_task_is_another_study(part: str, task: Task) -> None:
    changed = CHANGED_TASKS[part](task)
    assert study_digest(changed, candidate(), SearchSettings(), "a") != study_digest(
        task, candidate(), SearchSettings(), "a"
    )


@pytest.mark.parametrize("part", CHANGED_CANDIDATES)
def test_another_candidate_is_another_study(part: str, task: Task) -> None:
    changed = candidate(**CHANGED_CANDIDATES[part])
    assert study_digest(task, changed, SearchSettings(), "a") != study_digest(task, candidate(), SearchSettings(), "a")


@pytest.mark.parametrize("changes", CHANGED_SETTINGS)
def test_other_settings_are_another_study(changes: dict[str, Any], task: Task) -> None:
    changed = SearchSettings.model_validate(changes)
    assert study_digest(task, candidate(), changed, "a") != study_digest(task, candidate(), SearchSettings(), "a")


def test_another_name_is_another_study(task: Task) -> None:
    assert study_digest(task, candidate(), SearchSettings(), "a") != study_digest(
        task, candidate(), SearchSettings(), "b"
    )


def test_budgets_continue_the_same_study(task: Task) -> None:
    before = study_digest(task, candidate(), SearchSettings(), "a")
    assert study_digest(task, candidate(trials=3, share=0.9), SearchSettings(seconds=5, trials=99), "a") == before


def test_a_limit_of_rows_that_leaves_all_rows_continues_the_same_study(task: Task) -> None:
    assert study_digest(task, candidate(), SearchSettings(max_rows=1000), "a") == study_digest(
        task, candidate(), SearchSettings(), "a"
    )


def test_other_code_of_a_classifier_of_ours_is_another_study(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Candidate.model_validate({"class": "churn_pipeline.modelling.networks.NetworkClassifier"})
    before = study_digest(task, network, SearchSettings(), "a")
    real = inspect.getsource
    changed = f"{PACKAGE}.networks"
    monkeypatch.setattr(
        digest.inspect, "getsource", lambda of: real(of) + "# changed\n" * (getattr(of, "__name__", "") == changed)
    )
    assert study_digest(task, network, SearchSettings(), "a") != before


@pytest.mark.parametrize("changed", digest.MODULES)
def test_other_code_is_another_study(changed: str, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    before = study_digest(task, candidate(), SearchSettings(), "a")
    real = inspect.getsource

    def with_one_change(source_of: Any) -> str:
        is_changed = isinstance(source_of, ModuleType) and source_of.__name__ == f"{PACKAGE}.{changed}"
        return real(source_of) + ("# changed\n" if is_changed else "")

    monkeypatch.setattr(digest.inspect, "getsource", with_one_change)
    assert study_digest(task, candidate(), SearchSettings(), "a") != before


@pytest.mark.parametrize("library", [*digest.LIBRARIES, "Python"])
def test_another_version_of_a_library_is_another_study(
    library: str, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = study_digest(task, candidate(), SearchSettings(), "a")
    real = digest.version
    monkeypatch.setattr(digest, "version", lambda name: "0.0.1" if name == library else real(name))
    if library == "Python":
        monkeypatch.setattr(digest.platform, "python_version", lambda: "2.7.18")
    assert study_digest(task, candidate(), SearchSettings(), "a") != before


def test_the_version_of_the_classifiers_package_counts(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(digest, "version", lambda name: asked.append(name) or "1")
    study_digest(task, candidate().model_copy(update={"class_path": "lightgbm.LGBMClassifier"}), SearchSettings(), "a")
    assert "lightgbm" in asked


def test_a_package_that_is_not_installed_has_no_version(task: Task) -> None:
    given = candidate().model_copy(update={"class_path": "no_such_package.Classifier"})
    assert study_digest(task, given, SearchSettings(), "a")


# ---- no module is forgotten ------------------------------------------------------------------------------------------


def imported(module: str) -> Iterator[str]:
    """Names of the modules of churn_pipeline.modelling that a module imports, without the package's own name."""
    for node in ast.walk(ast.parse(source_file(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            inner = name.removeprefix(f"{PACKAGE}.")
            if inner != name and source_file(inner).is_file():
                yield inner


def source_file(module: str) -> Path:
    path = FOLDER / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def test_the_digest_covers_every_module_that_the_search_imports() -> None:
    # Candidates name our classifiers by import path, so no import leads to them.
    reached, waiting = set[str](), ["search.run", "kernels", "networks", "torch_network"]
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting.extend(imported(module))
    assert reached == set(digest.MODULES)


def test_the_digest_covers_every_module_of_the_search_package() -> None:
    # __init__ only re-exports names.
    files = {f"search.{file.stem}" for file in (FOLDER / "search").glob("*.py")} - {"search.__init__"}
    assert files == {module for module in digest.MODULES if module.startswith("search.")}
