"""Compare our service with others that serve the same model: `make benchmark-serving`, `-soak` and `-failures`.

Our service is the latest Bento, started as in `make serve`, with keys, rate limit, validation, metrics and prediction log enabled.
Each service has one worker and runs alone while it is measured. Each round measures all services in turn.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Timer

import joblib
import mlflow
import numpy as np
import pandas as pd
import psutil

from benchmarks.common import ROOT, project, write
from benchmarks.serving_peers.bento import STORE, TABLE, last_bento, read_manifest
from benchmarks.serving_peers.bentoml_sklearn import NAME
from benchmarks.serving_peers.load import CONNECTIONS, LOST, REFUSED, Open, open_loop, wrk
from benchmarks.serving_peers.parts import TIMES
from benchmarks.serving_peers.processes import Running, Service, running
from churn_pipeline.contract.validation import validate_table
from churn_pipeline.datasets import RegisteredVersionDataset
from churn_pipeline.serving.keys import make_key

PEERS = "benchmarks.serving_peers"
CUSTOMERS = 500  # sent one by one, in turn
MANY = 1000  # customers in a large request
OURS, NOTHING, FLOOR, EMPTY = "ours", "BentoML, nothing", "FastAPI, empty", "BentoML, empty"
NO_MODEL = (NOTHING, FLOOR, EMPTY)
SHARE = 0.7  # constant rate, as a share of the peak
SECONDS = 60  # duration of a constant-rate run
CONSTANT_ROUNDS = 2
FAILURE_RATE = 500
ANSWERED = '"outcome":"answered"'
PERCENTILES = (50, 99, 99.9)
TITLES = [f"p{percentile:g}, ms" for percentile in PERCENTILES]


def write_bodies(folder: Path) -> None:
    """Write the request bodies for all services, one per line: single customers, and many at once."""
    with project(table=TABLE) as context:
        contract = context.catalog.load("contract")
        customers = validate_table(context.catalog.load("raw_customers"), contract).customers[list(contract.features)]
    records = json.loads(customers.head(MANY).to_json(orient="records"))
    for wrapped in ("customers", "dataframe_records"):
        lines = [json.dumps({wrapped: [record]}) for record in records[:CUSTOMERS]]
        (folder / f"{wrapped}_1.txt").write_text("\n".join(lines))
        (folder / f"{wrapped}_{MANY}.txt").write_text(json.dumps({wrapped: records}))


def make_services(folder: Path) -> dict[str, Service]:
    """All services, with the same fitted model. The pickles of some peers exist only in this folder."""
    bento, manifest = last_bento(), read_manifest()
    name, version = manifest["model_name"], manifest["model_version"]
    with project(table=TABLE):
        registry = mlflow.get_tracking_uri()
        model = RegisteredVersionDataset(name, int(version)).load().model
    pickled, home = folder / "model.joblib", {"BENTOML_HOME": str(folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    joblib.dump(model, pickled)
    save = f"import bentoml, joblib; bentoml.sklearn.save_model('{NAME}', joblib.load('{pickled}'))"
    subprocess.run([sys.executable, "-c", save], env={**os.environ, **home}, check=True)
    key, line = make_key("benchmark")
    settings = {
        "CHURN_SERVING_KEYS": line,
        "CHURN_SERVING_RATE_LIMIT": "100000/second",
        "CHURN_SERVING_PREDICTION_LOG": str(folder / "predictions"),
        "CHURN_SERVING_PREDICTION_LOG_ID_KEY": key,
    }
    here = ("--host", "127.0.0.1", "--port", "{port}")
    bentoml = (sys.executable, "-m", "bentoml", "serve", *here)
    fast = ("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning")
    uvicorn = (sys.executable, "-m", "uvicorn", *fast, *here)
    by_mlflow = (sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--workers", "1", *here)
    return {
        OURS: Service((*bentoml, str(bento)), {**home, "BENTOML_HOME": str(STORE), **settings}, "/readyz", key=key),
        "mlflow models serve": Service(
            (*by_mlflow, "-m", f"models:/{name}/{version}"),
            {"MLFLOW_TRACKING_URI": registry, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            "/ping",
            "/invocations",
            "dataframe_records",
        ),
        "FastAPI, onnxruntime": Service(
            (*uvicorn, f"{PEERS}.fastapi_onnx:app"),
            {"PEER_ONNX": str(bento / "src/bundle/model.onnx")},
            "/openapi.json",
        ),
        "FastAPI, scikit-learn": Service(
            (*uvicorn, f"{PEERS}.fastapi_sklearn:app"), {"PEER_MODEL": str(pickled)}, "/openapi.json"
        ),
        "BentoML, scikit-learn": Service((*bentoml, f"{PEERS}.bentoml_sklearn:Peer"), home, "/readyz"),
        NOTHING: Service((*bentoml, f"{PEERS}.bentoml_nothing:Nothing"), home, "/readyz"),
        FLOOR: Service((*uvicorn, f"{PEERS}.fastapi_empty:app"), {}, "/openapi.json"),
        EMPTY: Service((*bentoml, f"{PEERS}.bentoml_empty:Empty"), home, "/readyz"),
    }


class Bench:
    """All services and their request bodies, in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_bodies(folder)
        self.services = make_services(folder)

    def bodies(self, service: Service, rows: int) -> Path:
        return self.folder / f"{service.wrapped}_{rows}.txt"

    @contextmanager
    def started(self, name: str) -> Iterator[Running]:
        """Start a service, wait until it is ready, and warm it up."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        with running(self.services[name], folder) as service:
            if name != EMPTY:
                wrk(service, self.bodies(service.service, 1), connections=16, seconds=2)
            yield service


Measured = Mapping[str, Sequence[Mapping[str, float]]]


def measure(bench: Bench, rounds: int, seconds: float) -> Measured:
    """Measure each service in each round."""
    measured: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(rounds):
        for name in bench.services:
            values = {"other_cpu": psutil.cpu_percent(interval=1)}
            with bench.started(name) as service:
                values |= {"ready": service.seconds, **measure_load(bench, service, name, seconds)}
                values["resident"] = service.resident()
            measured[name].append(values)
            print(name, {what: round(value, 2) for what, value in values.items()}, flush=True)
    return measured


def measure_load(bench: Bench, service: Running, name: str, seconds: float) -> dict[str, float]:
    """Requests/s, median milliseconds and rows/s of a service under closed-loop load."""
    if name == EMPTY:
        return {}
    one, many = bench.bodies(service.service, 1), bench.bodies(service.service, MANY)
    values = {
        "requests": wrk(service, one, connections=16, seconds=seconds).rate,
        "p50": wrk(service, one, connections=1, seconds=seconds).p50 * 1000,
    }
    if name != FLOOR:
        wrk(service, many, connections=4, seconds=1)
        values["rows"] = MANY * wrk(service, many, connections=4, seconds=seconds).rate
    return values


def comparison_table(measured: Measured) -> pd.DataFrame:
    """Medians over the rounds, and medians of the ratio ours / theirs within a round."""

    def values(name: str, what: str) -> np.ndarray:
        return np.array([one.get(what, np.nan) for one in measured[name]])

    def cells(name: str, what: str, title: str, form: str) -> dict[str, str]:
        theirs = values(name, what)
        ratio = np.median(values(OURS, what) / theirs)
        known = not np.isnan(ratio)
        return {
            title: format(np.median(theirs), form) if known else "",
            f"ours / theirs ({title})": f"{ratio:.2f}" if known and name != OURS else "",
        }

    return pd.DataFrame(
        {
            "service": name,
            **cells(name, "requests", "requests/s", ",.0f"),
            **cells(name, "p50", "p50, ms", ".2f"),
            **cells(name, "rows", "rows/s", ",.0f"),
            "ready after, s": f"{np.median(values(name, 'ready')):.1f}",
            "MiB": f"{np.median(values(name, 'resident')):.0f}",
        }
        for name in measured
    )


def strongest_peer(measured: Measured) -> str:
    """The service of others on the same model with the most requests/s."""
    peers = [name for name in measured if name != OURS and name not in NO_MODEL]
    return max(peers, key=lambda name: np.median([one["requests"] for one in measured[name]]))


def headline(measured: Measured) -> str:
    """Our figures as multiples of the strongest peer's: medians of the ratio within a round."""
    peer = strongest_peer(measured)
    requests, p50, rows = (
        np.median([ours[what] / theirs[what] for ours, theirs in zip(measured[OURS], measured[peer], strict=True)])
        for what in ("requests", "p50", "rows")
    )
    return (
        f"Compared with the strongest peer ({peer}, without keys, limits, metrics and logs): **{requests:.2f} × its requests/s, "
        f"{p50:.2f} × its p50, {rows:.2f} × its rows/s**."
    )


def at_constant_rates(bench: Bench, rates: Sequence[float], rounds: int) -> pd.DataFrame:
    """Our service and the BentoML endpoint that does nothing, in turn at the same constant rates."""
    names = (OURS, NOTHING)
    runs: dict[tuple[float, str], list[Open]] = defaultdict(list)
    for _ in range(rounds):
        for name in names:
            with bench.started(name) as service:
                bodies = bench.bodies(service.service, 1).read_bytes().splitlines()
                for rate in rates:
                    runs[rate, name].append(open_loop(service, bodies, rate, SECONDS))
                    print(rate, name, runs[rate, name][-1].statuses, runs[rate, name][-1].milliseconds(*PERCENTILES))
    rows = []
    for rate in rates:
        latencies = {name: np.array([one.milliseconds(*PERCENTILES) for one in runs[rate, name]]) for name in names}
        failed = {name: sum(one.failed for one in runs[rate, name]) for name in names}
        medians = {name: [f"{value:.2f}" for value in np.median(latencies[name], axis=0)] for name in names}
        rows += [[f"{rate:,.0f}", name, *medians[name], failed[name]] for name in names]
        ratios = np.median(latencies[OURS] / latencies[NOTHING], axis=0)
        rows.append([f"{rate:,.0f}", "ours / nothing", *(f"{value:.2f}" for value in ratios), ""])
    return pd.DataFrame(rows, columns=["requests/s", "service", *TITLES, "failed"])


def soak(bench: Bench, rate: float, minutes: int) -> pd.DataFrame:
    """Our service at a constant rate, with one row per minute."""
    rows = []
    with bench.started(OURS) as service:
        bodies = bench.bodies(service.service, 1).read_bytes().splitlines()
        for minute in range(1, minutes + 1):
            run = open_loop(service, bodies, rate, SECONDS)
            milliseconds = [f"{value:.2f}" for value in run.milliseconds(*PERCENTILES)]
            rows.append([minute, run.statuses.total(), run.failed, *milliseconds, f"{service.resident():.1f}"])
            print(rows[-1], flush=True)
    return pd.DataFrame(rows, columns=["minute", "requests", "failed", *TITLES, "MiB at the end"])


def parts_of_a_request(bench: Bench, milliseconds: float) -> pd.DataFrame:
    """Time of a request to our service by part; `milliseconds` is the total, measured by a client."""
    service = bench.services[OURS]
    words = [last_bento() / "src/bundle", bench.bodies(service, 1), bench.folder / "parts.json"]
    subprocess.run(
        [sys.executable, "-m", f"{PEERS}.parts", *words],
        cwd=ROOT,
        env={**os.environ, **service.environment},
        input=service.key,
        stdout=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    inner = json.loads(words[-1].read_text())
    alone, with_guard, served, lines = (inner.pop(name) for name in ("alone", "with guard", "served", "two log lines"))
    parts = {
        "HTTP: client, sockets, uvicorn": milliseconds * 1000 - served,
        "BentoML's layers": served - with_guard,
        "guard: id, route, key, rate limit, body, turn, metrics": with_guard - alone - lines,
        "two log lines: access and request": lines,
        "the rest of the predictor": alone - sum(inner.values()),
        **inner,
    }
    rows = [[name, f"{spent:.0f}", f"{spent / (milliseconds * 10):.0f} %"] for name, spent in parts.items()]
    return pd.DataFrame([*rows, ["total", f"{milliseconds * 1000:.0f}", "100 %"]], columns=["part", "µs", "share"])


def failures(bench: Bench) -> pd.DataFrame:
    """Outcome of requests under load when one of two workers is killed, and when the service gets SIGTERM."""

    def kill(service: Running) -> None:
        service.workers()[0].kill()

    def terminate(service: Running) -> None:
        service.process.send_signal(signal.SIGTERM)

    rows = []
    service = bench.services[OURS]
    two = replace(service, environment={**service.environment, "CHURN_SERVING_WORKERS": "2"})
    bodies = bench.bodies(service, 1).read_bytes().splitlines()
    for name, event in {"kill -9 of one of two workers": kill, "SIGTERM": terminate}.items():
        with running(two, Path(tempfile.mkdtemp(dir=bench.folder))) as started:
            while len(started.workers()) < 2:
                time.sleep(0.1)
            warm = open_loop(started, bodies, FAILURE_RATE, seconds=5)
            timer = Timer(3, event, [started])
            timer.start()
            run = open_loop(started, bodies, FAILURE_RATE, seconds=10)
            timer.join()
            started.process.send_signal(signal.SIGTERM)
            started.process.wait(timeout=30)
            logged = started.output.read_text().count(ANSWERED) - warm.statuses["200"]
        seen = [run.statuses[one] for one in ("200", LOST, REFUSED)]
        rows.append([name, run.statuses.total(), logged, *seen, run.statuses.total() - sum(seen)])
        print(rows[-1], run.milliseconds(*PERCENTILES), flush=True)
    titles = ["event", "requests", "answered (service log)", "answered (client)", "lost", "refused", "other"]
    return pd.DataFrame(rows, columns=titles)


def our_peak(bench: Bench, seconds: float) -> float:
    with bench.started(OURS) as service:
        return wrk(service, bench.bodies(service.service, 1), connections=16, seconds=seconds).rate


HOW = (
    "Table `{table}`, model version {version} ({candidate}). {rounds} rounds; in each, every service runs in turn for {seconds:g} s "
    "per measurement, with one worker on loopback. wrk generates the load on the same {cores} cores. For requests with one "
    "customer, requests/s is measured with 16 connections and p50 with one. For requests with {many:,} customers, rows/s is measured "
    "with 4 connections. `FastAPI, onnxruntime` is what a good engineer would write without guards: pydantic models, uvicorn with "
    "uvloop and httptools, and the same ONNX model with the same session options as ours. `BentoML, nothing` reads and checks the same requests, but runs no model. `FastAPI, empty` and "
    "`BentoML, empty` have an endpoint without input; the latter is measured only for its start-up time and memory. Values are "
    "medians; ratios are medians of the ratio within a round. Our service runs with keys, rate limit, validation, metrics and "
    "prediction log enabled. MiB: resident memory of the worker at the end. Other processes used {other_cpu:.0f} % of the CPU "
    "(median; maximum {max_cpu:.0f} %). Generated by `make benchmark-serving`."
)
HOW_OPEN = (
    "Constant rates: {share:.0%} of the peak of the BentoML endpoint that does nothing, and {share:.0%} of our peak. Each run takes "
    "{seconds} s; {rounds} runs per service and rate, in turn; values are medians. Latency counts from the time at which a request "
    "is due, so it includes waiting for a free connection. Generated by `make benchmark-serving`."
)
HOW_PARTS = (
    "Requests with one customer over one connection. The total is the p50 measured by the client, {seconds:g} s per round. Inside "
    "the process: medians of {times:,} calls to the application alone, with the guard, and with guard and BentoML. The time of a "
    "layer is the difference. Generated by `make benchmark-serving`."
)
HOW_FAILURES = (
    "Two workers, {rate} requests/s for ten seconds over {connections} connections; the event happens after three seconds. Lost: the "
    "request was sent, but the connection closed without an answer. If both counts of answered requests are equal, no worker had "
    "accepted a lost request. Refused: no process listens on the port. A load balancer that checks `/readyz` switches to another "
    "instance before either happens. Generated by `make benchmark-failures`."
)
HOW_SOAK = (
    "{rate:,.0f} requests/s ({share:.0%} of our peak) with one customer each; guard and logs enabled. MiB: resident memory of the "
    "worker. Generated by `make benchmark-soak`."
)


def main(rounds: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        measured = measure(bench, rounds, seconds)
        peaks = [float(np.median([one["requests"] for one in measured[name]])) for name in (NOTHING, OURS)]
        parts = parts_of_a_request(bench, float(np.median([one["p50"] for one in measured[OURS]])))
        constant = at_constant_rates(bench, [SHARE * peak for peak in peaks], CONSTANT_ROUNDS)
    other_cpu = [one["other_cpu"] for rounds_of_one in measured.values() for one in rounds_of_one]
    manifest = read_manifest()
    how = HOW.format(
        table=TABLE,
        version=manifest["model_version"],
        candidate=manifest["candidate"],
        rounds=rounds,
        seconds=seconds,
        cores=os.cpu_count(),
        many=MANY,
        other_cpu=np.median(other_cpu),
        max_cpu=max(other_cpu),
    )
    write("serving", "The service compared with others", how, comparison_table(measured), headline(measured))
    how = HOW_PARTS.format(seconds=seconds, times=TIMES)
    write("serving_parts", "Where the time of a request goes", how, parts)
    how = HOW_OPEN.format(share=SHARE, seconds=SECONDS, rounds=CONSTANT_ROUNDS)
    write("serving_rate", "The service at a constant rate", how, constant)


def main_soak(minutes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        rate = SHARE * our_peak(bench, seconds=10)
        table = soak(bench, rate, minutes)
    write("serving_soak", "The service under constant load", HOW_SOAK.format(rate=rate, share=SHARE), table)


def main_failures() -> None:
    with tempfile.TemporaryDirectory() as folder:
        table = failures(Bench(Path(folder)))
    how = HOW_FAILURES.format(rate=FAILURE_RATE, connections=CONNECTIONS)
    write("serving_failures", "The service during failures", how, table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--soak", type=int, metavar="MINUTES")
    parser.add_argument("--failures", action="store_true")
    given = parser.parse_args()
    if given.soak:
        main_soak(given.soak)
    elif given.failures:
        main_failures()
    else:
        main(given.rounds, given.seconds)
