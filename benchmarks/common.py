"""Shared by all benchmarks: the project's Kedro context, and the writer of results."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from kedro.framework.context import KedroContext
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"


# An environment outside conf/: its tables/ has the tables of the benchmark. It also leaves out the overrides in conf/local.
DEVELOPMENT = "../benchmarks/development"


@contextmanager
def project(env: str | None = None, **params: Any) -> Iterator[KedroContext]:
    """The project's context with an environment and runtime parameters, such as ``table='telco'``."""
    bootstrap_project(ROOT)
    with KedroSession.create(ROOT, env=env, runtime_params=params) as session:
        yield session.load_context()


def markdown_table(table: pd.DataFrame) -> str:
    """A table as Markdown."""
    rows = [[str(cell) for cell in row] for row in [table.columns.tolist(), *table.to_numpy().tolist()]]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * table.shape[1])
    return "\n".join(lines)


def write(name: str, title: str, how: str, table: pd.DataFrame, headline: str = "") -> None:
    """Write a result as Markdown, with its main figure first and a description of the measurement (`how`), and print it."""
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}"
    begin = [f"# {title}", "", *([headline, ""] if headline else [])]
    text = "\n".join([*begin, markdown_table(table), "", how, "", f"Measured on {machine}.", ""])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)
