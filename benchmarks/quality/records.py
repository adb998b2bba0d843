"""Scores of measured folds: one JSON line per fold and contender, without any customer's row, in benchmarks/results/quality."""

import json
import os
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, ROOT

Record = dict[str, Any]
KEY = ("table", "kind", "fold", "contender")


def file_of(name: str) -> Path:
    """The file of a set's scores."""
    return RESULTS / "quality" / f"{name}.jsonl"


def load(file: Path) -> list[Record]:
    """All records of a file; none if it is missing."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def save(file: Path, record: Record) -> None:
    """Add a record, in place of an earlier one of the same fold and contender."""
    others = [other for other in load(file) if _key(other) != _key(record)]
    lines = [json.dumps(one, ensure_ascii=False) for one in sorted([*others, record], key=_key)]
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text("\n".join(lines) + "\n", encoding="utf-8")
    new.replace(file)


def find(records: Iterable[Record], wanted: Record) -> Record | None:
    """The record of the same fold, contender and rows. A record of other rows does not count."""
    return next((one for one in records if _key(one) == _key(wanted) and one["rows"] == wanted["rows"]), None)


def circumstances() -> Record:
    """When, with which commit and on which machine a contender runs, and how busy the machine is before."""
    commit = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--", "src", "conf", "requirements", "benchmarks", ":!benchmarks/results")
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": f"{commit} (changed)" if changed else commit,
        "machine": {"cpu": _cpu(), "cores": os.cpu_count()},
        "load": round(os.getloadavg()[0], 1),
    }


def _key(record: Record) -> tuple[str, ...]:
    return tuple(str(record[name]) for name in KEY)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
