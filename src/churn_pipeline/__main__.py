"""Entry point of the packaged project: ``churn-pipeline`` runs it as ``kedro run`` does."""

import sys
from pathlib import Path
from typing import Any

from kedro.framework.cli.utils import find_run_command
from kedro.framework.project import configure_project

from churn_pipeline import prepare


def main(*args: Any, **kwargs: Any) -> Any:
    """Run the project; takes the options of ``kedro run``."""
    prepare()
    package_name = Path(__file__).parent.name
    configure_project(package_name)
    run = find_run_command(package_name)
    return run(*args, **{"standalone_mode": not hasattr(sys, "ps1"), **kwargs})


if __name__ == "__main__":
    main()
