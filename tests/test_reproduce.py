"""A rebuilt run is compared part by part, and different parts are named."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from churn_pipeline.record import Record, make_record
from churn_pipeline.reproduce import ReproduceError, _call, _params, compare, configure, load, rebuild

ORIGINAL = Record(
    run_id="run",
    commit="c" * 40,
    dirty=False,
    environment="local",
    python="3.11.7",
    command={"pipeline_names": "['training']"},
    table="simulated",
    table_file="source: {type: pandas.CSVDataset, filepath: x.csv}\n",
    runtime_params={},
    parameters={"table": "simulated"},
    digests={name: name * 10 for name in ("data", "contract", "holdout", "lock", "model")},
    metrics={"holdout.auc": 0.85, "holdout.log_loss": 0.39},
)


def _named(rebuilt: Record, original: Record = ORIGINAL) -> set[str]:
    return {comparison.part for comparison in compare(original, rebuilt) if not comparison.same}


def test_the_same_run_is_the_same_in_every_part() -> None:
    assert _named(ORIGINAL) == set()


@pytest.mark.parametrize("part", ["data", "contract", "holdout", "lock", "model"])
def test_a_changed_digest_is_named(part: str) -> None:
    rebuilt = ORIGINAL.model_copy(update={"digests": {**ORIGINAL.digests, part: "another"}})

    assert _named(rebuilt) == {part}


def test_a_metric_that_differs_in_its_last_bit_is_named() -> None:
    rebuilt = ORIGINAL.model_copy(update={"metrics": {**ORIGINAL.metrics, "holdout.auc": 0.8500000000000001}})

    assert _named(rebuilt) == {"metrics"}
    assert "holdout.auc" in str(next(item for item in compare(ORIGINAL, rebuilt) if item.part == "metrics"))


def test_the_order_of_candidates_is_kept(tmp_path: Path) -> None:
    record = ORIGINAL.model_copy(update={"parameters": {"candidates": {"simple": {}, "complex": {}}}})

    configure(record, tmp_path, tmp_path, None)

    written = yaml.safe_load((tmp_path / "conf/local/parameters.yml").read_text(encoding="utf-8"))
    assert list(written["candidates"]) == ["simple", "complex"]


def test_the_gates_numbers_are_not_compared() -> None:
    for name in ("gate/passed", "gate.passed"):  # with a dot in runs of earlier commits
        assert _named(ORIGINAL.model_copy(update={"metrics": {**ORIGINAL.metrics, name: 1.0}})) == set()


def test_uncommitted_code_is_never_the_same() -> None:
    assert _named(ORIGINAL, ORIGINAL.model_copy(update={"dirty": True})) == {"code"}


def test_a_part_of_a_pipeline_is_not_rebuilt(tmp_path: Path) -> None:
    partial = ORIGINAL.model_copy(update={"command": {"pipeline_names": "['training']", "from_nodes": "['evaluate']"}})

    with pytest.raises(ReproduceError, match="from_nodes"):
        rebuild(partial, tmp_path)


def test_a_refit_is_not_rebuilt_without_the_registry(tmp_path: Path) -> None:
    for names in ("['refit']", "refit"):
        update = {"command": {"pipeline_names": names}, "parameters": {"refit": {"version": "3"}}}

        with pytest.raises(ReproduceError, match=r"refitted version 3 from the model registry.*Reproduce the run that"):
            rebuild(ORIGINAL.model_copy(update=update), tmp_path)


def test_a_missing_commit_is_an_error(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)

    with pytest.raises(ReproduceError, match="fetch its branch"):
        rebuild(ORIGINAL, tmp_path)


def test_a_record_can_be_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_text(ORIGINAL.model_dump_json(), encoding="utf-8")

    assert load(str(file)) == ORIGINAL
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(ReproduceError, match="no record"):
        load(str(file))


def test_a_rebuild_does_not_inherit_a_server_or_a_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.setenv(name, "https://mlflow.example.com")
    inherited = _call([sys.executable, "-c", "import os; print(*os.environ)"], tmp_path, "the test").split()
    assert not [name for name in inherited if name.startswith("MLFLOW_") and name.endswith(("URI", "NAME"))]


def test_recorded_parameters_merge_with_those_of_the_checkout(tmp_path: Path) -> None:
    """JSON makes text of integer keys; the checkout's configuration still has integers."""
    (tmp_path / "folder/conf/base").mkdir(parents=True)
    base = {"simulation": {"shares": {0: 0.8, 1: 0.2}, "Label": {"1": "one"}}, "seed": 1}
    (tmp_path / "folder/conf/base/parameters.yml").write_text(yaml.safe_dump(base), encoding="utf-8")
    recorded = {"simulation": {"shares": {"0": 0.7, "1": 0.3}, "Label": {"1": "two"}, "new": {"2": 2}}, "seed": 2}
    configure(ORIGINAL.model_copy(update={"parameters": recorded}), tmp_path, tmp_path / "folder", None)
    written = yaml.safe_load((tmp_path / "folder/conf/local/parameters.yml").read_text(encoding="utf-8"))
    assert written == {"simulation": {"shares": {0: 0.7, 1: 0.3}, "Label": {"1": "two"}, "new": {"2": 2}}, "seed": 2}


def test_a_rebuild_repeats_the_recorded_trials_without_a_time_budget(tmp_path: Path) -> None:
    parameters = {
        "candidates": {"simple": {"trials": 20, "share": 0.5}, "forest": {"class": "a.Forest"}},
        "search": {"seconds": 60, "trials": 15, "max_rows": 5000},
    }
    limits = {"search": {"seconds": 60, "trials": 15, "max_rows": 5000}, "candidates": {"simple": {"trials": 20}}}
    update = {"parameters": parameters, "trials": {"simple": 7, "forest": 1}, "runtime_params": {**limits, "seed": 3}}
    record = ORIGINAL.model_copy(update=update)

    configure(record, tmp_path, tmp_path, None)

    written = yaml.safe_load((tmp_path / "conf/local/parameters.yml").read_text(encoding="utf-8"))
    assert written["candidates"] == {
        "simple": {"trials": 7, "share": 0.5},
        "forest": {"class": "a.Forest", "trials": 1},
    }
    assert written["search"] == {"seconds": None, "trials": None, "max_rows": 5000}
    assert _params(record) == "search.max_rows=5000,seed=3,table=simulated"


def test_a_record_keeps_the_number_of_trials_of_each_candidate() -> None:
    params = {"tuned.simple.trials": "7", "tuned.simple.arguments.C": "0.3", "tuned.forest.trials": "1", "seed": "1"}
    data = SimpleNamespace(tags={"table": "simulated"}, params=params, metrics={})
    run = SimpleNamespace(data=data, info=SimpleNamespace(run_id="run"))
    record = make_record(run, {}, {}, "label: {}\n")  # type: ignore[arg-type]

    assert record.trials == {"simple": 7, "forest": 1}


def test_a_record_of_an_earlier_commit_has_no_numbers_of_trials_and_keeps_its_parameters(tmp_path: Path) -> None:
    earlier = ORIGINAL.model_dump(exclude={"trials"}) | {"parameters": {"search": {"seconds": None}, "candidates": {}}}
    record = Record.model_validate(earlier)

    configure(record, tmp_path, tmp_path, None)

    written = yaml.safe_load((tmp_path / "conf/local/parameters.yml").read_text(encoding="utf-8"))
    assert written == earlier["parameters"]
