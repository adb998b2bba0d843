"""The job summary of a real training's reports, with and without main's reports."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from tests.conftest import ROOT, Trained

SCRIPT = ROOT / ".github/scripts/job_summary.py"


@pytest.fixture(scope="module")
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("job_summary")


@pytest.fixture(scope="module")
def reports(trained: Trained) -> Path:
    """Reports of a training on a few customers; tests must not change them."""
    return trained.project.path / "data/08_reporting"


@pytest.fixture
def mains(reports: Path, tmp_path: Path) -> Path:
    """A copy of the reports that a test changes into main's."""
    return Path(shutil.copytree(reports, tmp_path / "main_reports"))


def _cells(summary: str, first: str) -> list[str]:
    """Return the cells of the only table row that begins with a word."""
    [line] = [line for line in summary.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_without_main_only_the_run_is_shown(script, reports, tmp_path) -> None:
    summary = script.job_summary(reports, tmp_path / "nothing")

    metrics = pd.read_csv(reports / "simulated/metrics.csv", index_col="metric")
    log_loss = metrics.loc["log_loss"]
    assert _cells(summary, "log_loss")[1:] == [
        f"{log_loss['value']:.4f}",
        f"[{log_loss['lower']:.4f}, {log_loss['upper']:.4f}]",
        f"{log_loss['best_possible']:.4f}",
    ]
    choice = json.loads((reports / "simulated/choice.json").read_text(encoding="utf-8"))
    assert f"Chosen: **{choice['candidate']}**. {choice['sentences'][0]}" in summary
    assert "There are no reports of main to compare with." in summary
    gate = json.loads((reports / "simulated/gate.json").read_text(encoding="utf-8"))
    assert f"### Gate: {gate['verdict']}" in summary
    assert all(f"- {reason}" in summary for reason in gate["reasons"])


def test_every_candidate_has_a_row_and_every_metric_of_the_holdout(script, reports, tmp_path) -> None:
    summary = script.job_summary(reports, tmp_path)

    for candidate in pd.read_csv(reports / "simulated/leaderboard.csv")["candidate"]:
        assert len(_cells(summary, candidate)) == 10
    for name in ("metrics", "profit"):
        for metric in pd.read_csv(reports / f"simulated/{name}.csv")["metric"]:
            assert _cells(summary, metric)


def test_equal_reports_show_no_difference(script, reports, mains) -> None:
    summary = script.job_summary(reports, mains)

    assert _cells(summary, "log_loss")[-1] == "+0.0000"
    assert _cells(summary, "logistic")[1].endswith("(+0.0000)")
    assert "**+" not in summary
    assert "Different from main" not in summary
    assert "Main" not in summary


def test_differences_to_main_are_shown_and_those_beyond_the_interval_are_bold(script, reports, mains) -> None:
    file = mains / "simulated/metrics.csv"
    metrics = pd.read_csv(file, index_col="metric")
    metrics.loc["auc", "value"] -= 0.0123
    metrics.loc["log_loss", "value"] += 1
    metrics.to_csv(file)
    file = mains / "simulated/leaderboard.csv"
    board = pd.read_csv(file, index_col="candidate")
    board.loc["splines", "brier"] += 0.25
    board.rename(index={"logistic": "probit"}).to_csv(file)

    summary = script.job_summary(reports, mains)

    assert _cells(summary, "auc")[-1] == "+0.0123"
    assert _cells(summary, "log_loss")[-1] == "**-1.0000**"
    assert "(-0.2500)" in " ".join(_cells(summary, "splines"))
    assert "(" not in " ".join(_cells(summary, "logistic"))
    assert "Only on main: probit." in summary


def test_another_choice_and_another_holdout_of_main_are_shown(script, reports, mains) -> None:
    for name, part, value in (("choice", "candidate", "probit"), ("data_report", "digests", {"holdout": "other"})):
        file = mains / f"simulated/{name}.json"
        file.write_text(
            json.dumps({**json.loads(file.read_text(encoding="utf-8")), part: value}, ensure_ascii=False),
            encoding="utf-8",
        )

    summary = script.job_summary(reports, mains)

    assert "Main chose **probit**." in summary
    assert "Different from main: data, contract, holdout." in summary


@pytest.mark.parametrize("missing", ["choice.json", "gate.json", "data_report.json", "metrics.csv", "profit.csv"])
def test_reports_of_main_may_be_incomplete(script, reports, mains, missing) -> None:
    (mains / "simulated" / missing).unlink()

    assert "### Leaderboard" in script.job_summary(reports, mains)


def test_names_break_no_table_and_are_no_markup(script, reports, tmp_path) -> None:
    copied = Path(shutil.copytree(reports, tmp_path / "reports"))
    file = copied / "simulated/leaderboard.csv"
    pd.read_csv(file).replace("logistic", "a|b<img>").to_csv(file, index=False)

    summary = script.job_summary(copied, tmp_path)

    assert "| a\\|b&lt;img> |" in summary


def test_the_script_runs_as_in_the_workflow(reports, tmp_path) -> None:
    def call(folder: Path) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, str(SCRIPT), str(folder), "--main", str(tmp_path / "nothing")]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    assert call(reports).stdout.startswith("## Training of `simulated`\n")
    refused = call(tmp_path)
    assert refused.returncode == 1
    assert "train first (make train)" in refused.stderr
