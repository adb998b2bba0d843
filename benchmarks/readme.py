"""Write the measured figures and the last summary into the README: `make readme`. No figure there is typed by hand."""

import re
from pathlib import Path

from benchmarks.common import RESULTS, ROOT


def _put(text: str, name: str, content: str) -> str:
    pattern = rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)"
    return re.sub(pattern, lambda match: f"{match[1]}{content}\n{match[2]}", text, flags=re.DOTALL)


def main() -> None:
    readme = Path(ROOT / "README.md")
    summary = (ROOT / "data/08_reporting/simulated/summary.txt").read_text(encoding="utf-8").split("\n\nLook next")[0]
    results = [file.read_text(encoding="utf-8").strip() for file in sorted(RESULTS.glob("*.md"))]
    text = _put(readme.read_text(encoding="utf-8"), "summary", f"```text\n{summary}\n```")
    text = _put(text, "figures", "\n\n".join(re.sub(r"^# ", "### ", result) for result in results))
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
