import math
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from prometheus_client import generate_latest
from tests.serving.manifest import MANIFEST

from churn_pipeline.serving.metrics import PROBABILITIES, Metrics


class Violation(NamedTuple):
    field: str | None
    rule: str


def metric(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


@given(arrays(np.float64, st.integers(0, 300), elements=st.floats(0, 1) | st.sampled_from([0.0, *PROBABILITIES])))
def test_a_batch_of_probabilities_is_counted_like_single_ones(probabilities: npt.NDArray[np.float64]) -> None:
    many, single = Metrics(), Metrics()
    many.predicted(probabilities, probabilities >= 0.5, "3")
    for one in probabilities:
        single.probabilities.observe(float(one))
    for bound in (*PROBABILITIES, math.inf):
        le = "+Inf" if math.isinf(bound) else str(float(bound))
        assert metric(many, "churn_probability_bucket", le=le) == metric(single, "churn_probability_bucket", le=le)
    total = metric(many, "churn_probability_sum")
    assert total == pytest.approx(metric(single, "churn_probability_sum"))
    served = {"model_version": "3", "role": "champion"}
    for decision, expected in (("contact", np.sum(probabilities >= 0.5)), ("no_contact", np.sum(probabilities < 0.5))):
        assert (metric(many, "churn_predictions_total", decision=decision, **served) or 0) == expected


def test_rows_of_a_request_are_counted() -> None:
    metrics = Metrics()
    for rows in (1, 1, 40, 10_000):
        metrics.request_scored(rows)
    assert metric(metrics, "churn_request_rows_bucket", le="1.0") == 2
    assert metric(metrics, "churn_request_rows_bucket", le="50.0") == 3
    assert metric(metrics, "churn_request_rows_sum") == 10_042


def test_violations_are_counted_by_field_and_rule_without_text_of_the_caller() -> None:
    metrics = Metrics()
    metrics.model_loaded(MANIFEST, ["months", "region"])
    metrics.refused([Violation("months", "in_range"), Violation("months", "in_range"), Violation("region", "isin")])
    metrics.refused([Violation("Jane Doe", "unknown field"), Violation(None, "json")])
    assert metric(metrics, "churn_refusals_total", field="months", rule="in_range") == 2
    assert metric(metrics, "churn_refusals_total", field="region", rule="isin") == 1
    assert metric(metrics, "churn_refusals_total", field="other", rule="unknown field") == 1
    assert b"Jane" not in generate_latest(metrics.registry)


def test_the_model_and_the_time_since_load_are_shown() -> None:
    metrics = Metrics()
    metrics.model_loaded(MANIFEST)
    labels = {
        name: str(getattr(MANIFEST, name))
        for name in ("table", "model_name", "model_version", "run_id", "commit", "model_digest", "threshold")
    }
    assert metric(metrics, "churn_model_info", **labels) == 1
    assert metric(metrics, "churn_model_loaded_timestamp_seconds") == pytest.approx(time.time(), abs=5)
    time.sleep(0.02)
    before = metric(metrics, "churn_seconds_since_load")
    metrics.refresh()
    since = metric(metrics, "churn_seconds_since_load")
    assert before is not None
    assert since is not None
    assert before < 0.02 <= since < 5


def test_a_model_served_before_is_shown_as_0() -> None:
    metrics = Metrics()
    metrics.model_loaded(MANIFEST)
    metrics.model_loaded(MANIFEST.model_copy(update={"model_version": "4"}))
    shown = [line for line in generate_latest(metrics.registry).decode().splitlines() if "churn_model_info{" in line]
    assert sorted((re.search('model_version="(.)"', line)[1], line[-3:]) for line in shown) == [
        ("3", "0.0"),
        ("4", "1.0"),
    ]


def test_probabilities_in_the_shadow_do_not_count_as_served() -> None:
    metrics = Metrics()
    metrics.predicted(np.array([0.2, 0.9]), np.array([False, True]), "4", "shadow")
    assert metric(metrics, "churn_probability_count") == 0
    assert metric(metrics, "churn_predictions_total", decision="contact", model_version="4", role="shadow") == 1


def test_durations_below_a_millisecond_have_separate_buckets() -> None:
    metrics = Metrics()
    for seconds in (0.0002, 0.0004, 0.0006):
        metrics.answered("/predict", 200, seconds)
    counted = [
        metric(metrics, "churn_request_seconds_bucket", path="/predict", status="200", le=le)
        for le in ("0.00025", "0.0005", "0.00075")
    ]
    assert counted == [1, 2, 3]


def test_metrics_of_several_processes_are_added_up(tmp_path: Path) -> None:
    """As BentoML's workers write them and its ``/metrics`` reads them."""
    worker = (
        "import numpy as np; from tests.serving.manifest import MANIFEST; "
        "from churn_pipeline.serving.metrics import Metrics; m = Metrics(); m.model_loaded(MANIFEST); "
        "m.predicted(np.full(70, .9), np.ones(70, bool), '3'); m.predicted(np.array([.1]), np.zeros(1, bool), '3')"
    )
    reader = (
        "from prometheus_client import CollectorRegistry, generate_latest; "
        "from prometheus_client.multiprocess import MultiProcessCollector; r = CollectorRegistry(); "
        "MultiProcessCollector(r); print(generate_latest(r).decode())"
    )
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PATH": ""}
    root = Path(__file__).parents[2]
    for program in (worker, worker):
        subprocess.run([sys.executable, "-c", program], env=environment, cwd=root, check=True)
    shown = subprocess.run(
        [sys.executable, "-c", reader], env=environment, cwd=root, check=True, capture_output=True, text=True
    ).stdout
    assert 'churn_predictions_total{decision="contact",model_version="3",role="champion"} 140.0' in shown
    assert 'churn_probability_bucket{le="0.1"} 2.0' in shown
    assert "churn_probability_count 142.0" in shown
    assert re.search(r"churn_model_info\{.*\} 1\.0", shown)
    assert "pid=" not in shown
