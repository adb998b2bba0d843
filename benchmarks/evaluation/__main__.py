"""Measure parts of the evaluation and write them to ``benchmarks/results/evaluation.md``."""

import argparse
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib import import_module
from types import ModuleType

from benchmarks.common import RESULTS, ROOT

PARTS = ("splits", "gate", "leaks", "decision", "intervals", "tables")
FILE = RESULTS / "evaluation.md"
HEAD = "# How far the evaluation can be trusted\n\n`make benchmark-evaluation` measures all parts; `PART=gate` measures one.\n"


def main() -> None:
    """Measure the chosen parts, and replace their sections of the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    chosen = parser.parse_args().parts or PARTS
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    for part in chosen:
        section = _section(import_module(f"benchmarks.evaluation.{part}"))
        print(section)
        _replace(part, section)


def _section(module: ModuleType) -> str:
    """Measure a part, and add where and when."""
    body = module.measure().strip()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    origin = (
        f"Measured at commit {commit.stdout.strip()} with {os.cpu_count()} cores and Python {platform.python_version()}, "
        f"{datetime.now(UTC):%Y-%m-%d}."
    )
    return f"## {module.TITLE}\n\n{body}\n\n{origin}\n"


def _replace(part: str, section: str) -> None:
    """Write a part's section between its markers."""
    text = FILE.read_text(encoding="utf-8") if FILE.exists() else HEAD
    begin, end = f"<!-- {part} -->", f"<!-- end of {part} -->"
    marked = f"{begin}\n\n{section}\n{end}"
    if begin in text:
        text = re.sub(f"{begin}.*?{end}", lambda _: marked, text, flags=re.DOTALL)
    else:
        text = f"{text.rstrip()}\n\n{marked}\n"
    FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
