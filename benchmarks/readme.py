"""Copy the last run's summary and the main results into the README: `make readme`. Do not edit these parts by hand."""

import re
from pathlib import Path

from benchmarks.common import RESULTS, ROOT
from benchmarks.quality.summary import summary as quality_summary

SETS = ("development", "shown")  # the order of the quality summaries
SHOWN = ("serving",)  # the site shows all results


def _replace_block(text: str, name: str, content: str) -> str:
    pattern = rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)"
    return re.sub(pattern, lambda match: f"{match[1]}{content}\n{match[2]}", text, flags=re.DOTALL)


def main() -> None:
    readme = Path(ROOT / "README.md")
    summary = (ROOT / "data/08_reporting/simulated/summary.txt").read_text(encoding="utf-8").rstrip()
    results = [(RESULTS / f"{name}.md").read_text(encoding="utf-8").strip() for name in SHOWN]
    parts = [quality_summary(name) for name in SETS] + [re.sub(r"^# ", "### ", result) for result in results]
    text = _replace_block(readme.read_text(encoding="utf-8"), "summary", f"```text\n{summary}\n```")
    text = _replace_block(text, "figures", "\n\n".join(part for part in parts if part))
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
