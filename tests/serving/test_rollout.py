"""Two workers in this process that share a folder of bundles: they switch together or not at all."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from tests.serving.conftest import customers_of, make_bundle, rewrite_manifest
from tests.serving.signing import write_keys
from tests.serving.test_requests import GOOD

from churn_pipeline.contract.table import Contract
from churn_pipeline.datasets.signing import BundleSigner
from churn_pipeline.serving.bundle import BundleError, load_bundle
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.processes import WORKERS_FOLDER
from churn_pipeline.serving.rollout import Rollout, check_bundles
from churn_pipeline.serving.sample import make_sample
from churn_pipeline.serving.service import source_of
from churn_pipeline.serving.settings import Settings, SettingsError
from churn_pipeline.serving.split import in_share

CUSTOMERS = [{**GOOD, "customer": f"C-{row:05d}"} for row in range(40)]
BODY = json.dumps({"customers": CUSTOMERS}).encode()


def point(folder: Path, pointer: str, name: str | None) -> None:
    """Write or remove a pointer in one step."""
    if name is None:
        (folder / pointer).unlink()
    else:
        (folder / "written").write_text(f"{name}\n")
        (folder / "written").replace(folder / pointer)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, bundle_folder: Path) -> Path:
    """Bundles of versions 1 and 2, and some that must not be served."""
    folder = tmp_path_factory.mktemp("models")
    contract = Contract.model_validate_json((bundle_folder / "contract.json").read_bytes())
    shutil.copytree(bundle_folder, folder / "v1")
    make_bundle(folder / "v2", contract, customers_of(contract, 200))
    rewrite_manifest(folder / "v2", model_version="2")
    for name in ("altered", "other_answers", "no_sample"):
        shutil.copytree(folder / "v2", folder / name)
    (folder / "altered" / "model.onnx").write_bytes((folder / "v1" / "model.onnx").read_bytes())
    sample = json.loads((folder / "v2" / "sample.json").read_bytes())
    sample["churn_probabilities"][3] += 1e-4
    (folder / "other_answers" / "sample.json").write_text(json.dumps(sample))
    rewrite_manifest(folder / "other_answers", model_version="3")
    (folder / "no_sample" / "sample.json").unlink()
    rewrite_manifest(folder / "no_sample", model_version="4")
    return folder


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    made = tmp_path / "bundles"
    shutil.copytree(models, made)
    point(made, "current", "v1")
    return made


@pytest.fixture
def start(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Rollout]]:
    """Starts a worker whose steps the test takes."""
    (tmp_path / "run").mkdir()
    monkeypatch.setenv(WORKERS_FOLDER, str(tmp_path / "run"))
    started: list[Rollout] = []

    def begin(**given: str) -> Rollout:
        named = {f"CHURN_SERVING_{name.upper()}": value for name, value in given.items()}
        settings = Settings.from_environment(
            {"CHURN_SERVING_AUTHENTICATION": "off", "CHURN_SERVING_BUNDLES": str(folder), **named}
        )
        started.append(Rollout(settings, Metrics(), *source_of(settings), f"worker-{len(started)}"))
        return started[-1]

    yield begin
    for worker in started:
        worker.close()


def answer(worker: Rollout, body: bytes = BODY, path: str = "predict") -> dict[str, Any]:
    rows, content = getattr(worker, path)(body, "an-id")
    said: dict[str, Any] = json.loads(content)
    assert len(said["predictions"]) == rows
    return said


def version(worker: Rollout) -> str:
    return str(answer(worker)["model_version"])


def metric(worker: Rollout, name: str, **labels: str) -> float:
    return worker._metrics.registry.get_sample_value(name, labels) or 0.0


def test_all_workers_switch_only_when_each_is_ready_and_switch_back_from_memory(
    start: Callable[..., Rollout], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = start(), start()
    point(folder, "current", "v2")
    for _ in range(3):
        one.step()
        assert (version(one), version(other)) == ("1", "1"), "the other worker is not ready"
    assert one._health() == {"bundle": "v1", "second_bundle": None, "rollout": "loading"}
    other.step()
    one.step()
    assert (version(one), version(other)) == ("2", "2")
    assert one._health() == {"bundle": "v2", "second_bundle": None, "rollout": "done"}
    assert one.document["info"]["version"] == "2"
    assert sum(metric(worker, "churn_rollouts_total", outcome="switched") for worker in (one, other)) == 1
    monkeypatch.setattr(one._folder, "load", lambda _: pytest.fail("the bundle served before is in memory"))
    point(folder, "current", "v1")
    one.step()
    other.step()
    one.step()
    assert (version(one), version(other)) == ("1", "1")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("altered", "model.onnx has changed since packaging"),
        ("other_answers", "churn probabilities differ by up to 0.0001"),
        ("no_sample", "it has no sample.json"),
        ("missing", "manifest.json cannot be read"),
        ("../bundles/v2", "must contain the name of a sub-folder"),
    ],
)
def test_a_bad_bundle_is_refused_by_all_with_one_line(
    start: Callable[..., Rollout], folder: Path, caplog: pytest.LogCaptureFixture, name: str, reason: str
) -> None:
    one, other = start(), start()
    point(folder, "current", name)
    for worker in (one, other, one, other):
        worker.step()
    assert (version(one), version(other)) == ("1", "1")
    assert one._health()["rollout"] == other._health()["rollout"] == "refused"
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert reason in line
    assert "\n" not in line
    assert metric(one, "churn_rollouts_total", outcome="refused") == 1
    later = start()
    assert version(later) == "1", "a worker that starts later serves what is agreed"
    point(folder, "current", "v2")
    for worker in (one, other, later, one, other):
        worker.step()
    assert {version(worker) for worker in (one, other, later)} == {"2"}


def test_a_worker_that_dies_between_is_not_waited_for(start: Callable[..., Rollout], folder: Path) -> None:
    one, other = start(), start()
    point(folder, "current", "v2")
    one.step()
    assert version(one) == "1"
    held = other._agreement._held
    assert held is not None
    held.close()  # what the kernel does when the process ends
    one.step()
    assert version(one) == "2"
    assert version(start()) == "2", "its replacement loads what is agreed"


def predictions_of(start: Callable[..., Rollout], folder: Path, name: str, path: str) -> list[dict[str, Any]]:
    """The predictions of a bundle that is served alone."""
    settings = Settings.from_environment({"CHURN_SERVING_AUTHENTICATION": "off"})
    said = answer(Rollout(settings, Metrics(), load_bundle, folder / name), path=path)
    base = {key: said[key] for key in said if key.startswith("base_")}
    return [{**prediction, **base} for prediction in said["predictions"]]


@pytest.mark.parametrize("path", ["predict", "explain"])
def test_each_customer_is_answered_by_its_own_model_in_the_order_of_the_request(
    start: Callable[..., Rollout], folder: Path, path: str
) -> None:
    point(folder, "second", "v2")
    worker = start(split_share="0.4")
    chosen = [in_share(customer, "customer", 0.4) for customer in CUSTOMERS]
    assert 5 < sum(chosen) < 30
    first, second = (predictions_of(start, folder, name, path) for name in ("v1", "v2"))
    expected = [
        {**(two if is_chosen else one), "model_version": "2" if is_chosen else "1"}
        for one, two, is_chosen in zip(first, second, chosen, strict=True)
    ]
    assert answer(worker, path=path)["predictions"] == expected
    counted = {
        role: sum(
            metric(worker, "churn_predictions_total", decision=decision, model_version=number, role=role)
            for decision in ("contact", "no_contact")
        )
        for role, number in (("champion", "1"), ("challenger", "2"))
    }
    assert counted == {"champion": chosen.count(False), "challenger": chosen.count(True)}
    assert metric(worker, "churn_request_rows_count") == 1


def test_the_shadow_is_counted_and_logged_but_not_returned(
    start: Callable[..., Rollout], folder: Path, tmp_path: Path
) -> None:
    point(folder, "second", "v2")
    worker = start(shadow="on", prediction_log=str(tmp_path / "log"))
    expected = predictions_of(start, folder, "v1", "predict")
    assert answer(worker)["predictions"] == expected
    worker.close()
    (file,) = (tmp_path / "log").iterdir()  # the bundles of a worker share one log
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted({(line["role"], line["model_version"]) for line in lines}) == [("champion", "1"), ("shadow", "2")]
    assert len(lines) == 2 * len(CUSTOMERS)
    assert len({line["model_digest"] for line in lines}) == 2
    assert metric(worker, "churn_shadow_rows_total", outcome="scored") == len(CUSTOMERS)


def test_a_shadow_that_fails_or_is_late_costs_no_answer(
    start: Callable[..., Rollout], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point(folder, "second", "v2")
    worker = start(shadow="on")
    monkeypatch.setattr("churn_pipeline.serving.served.WAITING_ROWS", 2 * len(CUSTOMERS))
    challenger = worker._served.challenger
    assert challenger is not None
    monkeypatch.setattr(challenger, "score", lambda _: 1 / 0)
    monkeypatch.setattr(worker._shadow._background, "put", lambda _: True)  # its thread is stuck
    assert [len(answer(worker)["predictions"]) for _ in range(4)] == [len(CUSTOMERS)] * 4
    assert metric(worker, "churn_shadow_rows_total", outcome="dropped") == 2 * len(CUSTOMERS)
    worker._shadow._score([(challenger, "an-id", CUSTOMERS)])
    assert metric(worker, "churn_shadow_rows_total", outcome="failed") == len(CUSTOMERS)


def test_customers_that_the_shadow_cannot_score_before_the_end_are_counted(
    start: Callable[..., Rollout], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point(folder, "second", "v2")
    worker, go_on = start(shadow="on"), threading.Event()
    monkeypatch.setattr("churn_pipeline.serving.served.CLOSE_SECONDS", 0.1)
    challenger = worker._served.challenger
    assert challenger is not None
    monkeypatch.setattr(challenger, "score", lambda _: go_on.wait(10))
    answer(worker)
    worker.close()
    go_on.set()
    assert metric(worker, "churn_shadow_rows_total", outcome="lost") == len(CUSTOMERS)


@pytest.mark.parametrize("pointer", ["current", "second"])
def test_with_a_signature_key_an_unsigned_bundle_is_refused_and_the_old_one_stays_served(
    start: Callable[..., Rollout], folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, pointer: str
) -> None:
    key, signer = str(write_keys(tmp_path)), BundleSigner(tmp_path / "key.pem")
    signer.sign(folder / "v1")
    one, other = start(signature_key=key), start(signature_key=key)
    point(folder, pointer, "v2")
    for worker in (one, other, one, other):
        worker.step()
    assert (version(one), version(other)) == ("1", "1")
    assert one._health() == {"bundle": "v1", "second_bundle": None, "rollout": "refused"}
    assert "bundle v2: the bundle is not signed" in caplog.text
    with pytest.raises(BundleError, match="the bundle is not signed"):
        check_bundles(one._settings, *source_of(one._settings))
    signer.sign(folder / "v2")
    point(folder, pointer, "v2")
    for worker in (one, other, one, other):
        worker.step()
    expected = (
        {"bundle": "v2", "second_bundle": None} if pointer == "current" else {"bundle": "v1", "second_bundle": "v2"}
    )
    assert one._health() == other._health() == {**expected, "rollout": "done"}


def test_a_second_bundle_that_accepts_other_requests_is_refused(
    start: Callable[..., Rollout], folder: Path, bundle_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    contract = Contract.model_validate_json((bundle_folder / "contract.json").read_bytes())
    changed = contract.columns["months"].model_copy(update={"less_than": 601})
    other = contract.model_copy(update={"columns": {**contract.columns, "months": changed}})
    make_bundle(folder / "wider", other, customers_of(contract, 200))
    worker = start()
    point(folder, "second", "wider")
    worker.step()
    assert worker._health() == {"bundle": "v1", "second_bundle": None, "rollout": "refused"}
    assert "the second bundle accepts other requests than the first (months differ)" in caplog.text


def test_a_folder_without_a_pointer_is_refused_at_the_start(start: Callable[..., Rollout], folder: Path) -> None:
    point(folder, "current", None)
    with pytest.raises(BundleError, match="has no file current: write the name of the sub-folder"):
        start()


@pytest.mark.parametrize(
    ("current", "second", "reason"),
    [
        ("altered", None, "model.onnx has changed"),
        ("other_answers", None, "churn probabilities differ"),
        ("v1", "no_sample", "it has no sample.json"),
        ("v1", "v2", None),
    ],
)
def test_bundles_are_checked_before_any_worker_starts(
    folder: Path, current: str, second: str | None, reason: str | None
) -> None:
    point(folder, "current", current)
    if second is not None:
        point(folder, "second", second)
    settings = Settings.from_environment({"CHURN_SERVING_AUTHENTICATION": "off", "CHURN_SERVING_BUNDLES": str(folder)})
    with pytest.raises(BundleError, match=reason) if reason else nullcontext():
        check_bundles(settings, load_bundle, folder)


def test_a_symbolic_link_is_a_pointer(start: Callable[..., Rollout], folder: Path) -> None:
    (folder / "current").unlink()
    (folder / "current").symlink_to("v2")
    assert version(start()) == "2"


@pytest.mark.parametrize(("name", "value"), [("SPLIT_SHARE", "0.1"), ("SHADOW", "on"), ("BUNDLE", "/one")])
def test_settings_that_do_not_fit_together_are_refused(name: str, value: str) -> None:
    given = {"CHURN_SERVING_AUTHENTICATION": "off", f"CHURN_SERVING_{name}": value}
    if name == "BUNDLE":
        given["CHURN_SERVING_BUNDLES"] = "/all"
    with pytest.raises(SettingsError, match="BUNDLES"):
        Settings.from_environment(given)


def test_the_sample_is_valid_and_fits_the_model(bundle_folder: Path) -> None:
    bundle = load_bundle(bundle_folder)
    made = make_sample(bundle.contract, bundle.training_profile, bundle.session, bundle.numeric, bundle.categorical)
    assert bundle.sample == made.model_dump_json().encode(), "the same model gives the same sample"
