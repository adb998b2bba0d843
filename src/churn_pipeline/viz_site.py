"""Finish kedro-viz's static site: `python -m churn_pipeline.viz_site build/graph`.

kedro-viz 12.5 requests the run's status from the host's root, so a site in a folder shows none. There is no setting for it.
"""

import json
import sys
from pathlib import Path
from typing import Any

# The address in kedro-viz's JavaScript; every other request starts with "./api".
STATUS_ADDRESS = "/api/run-status"
# Only the address is known here, not the bundle's code, so this also works with another build of kedro-viz.
REDIRECT = (
    "<script>{const original = window.fetch; window.fetch = (address, ...options) => "
    f'original(address === "{STATUS_ADDRESS}" ? ".{STATUS_ADDRESS}" : address, ...options);}}</script>'
)


def finish_site(site: Path) -> None:
    """Let the page find the run's status, and remove error messages from the status.

    An error message may contain a customer's value.

    Raises
    ------
    SystemExit
        If the files are not as kedro-viz 12.5 builds them.
    """
    scripts = "".join(file.read_text(encoding="utf-8") for file in (site / "assets").glob("*.js"))
    page = site / "index.html"
    content = page.read_text(encoding="utf-8")
    if f'"{STATUS_ADDRESS}"' not in scripts or "<head>" not in content:
        sys.exit(f"kedro-viz no longer requests {STATUS_ADDRESS}: adapt src/churn_pipeline/viz_site.py")
    if REDIRECT not in content:
        page.write_text(content.replace("<head>", f"<head>{REDIRECT}", 1), encoding="utf-8")
    status = site / "api" / "run-status"
    status.write_text(json.dumps(json.loads(status.read_text(encoding="utf-8"), object_hook=_without_error)))


def _without_error(part: dict[str, Any]) -> dict[str, Any]:
    return part | {"error": None} if "error" in part else part


if __name__ == "__main__":
    finish_site(Path(sys.argv[1]))
