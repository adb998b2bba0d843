"""Entry point of the packaged project: ``churn-pipeline`` does what ``kedro run`` does."""

import sys
from pathlib import Path
from typing import Any

from kedro.framework.project import configure_project

from churn_pipeline import prepare


def main(*args: Any, **kwargs: Any) -> Any:
    """Run the project; takes the options of ``kedro run``."""
    prepare()
    configure_project(Path(__file__).parent.name)
    from churn_pipeline.cli import run  # noqa: PLC0415 - prepare() chooses the code to import

    return run(*args, **{"standalone_mode": not hasattr(sys, "ps1"), **kwargs})


if __name__ == "__main__":
    main()
