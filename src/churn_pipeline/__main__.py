"""Entry point of the packaged project: ``churn-pipeline`` does what ``kedro run`` does.

``churn-pipeline table …`` does what ``kedro table …`` does, without importing the commands of Kedro's plugins.
"""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kedro.framework.project import configure_project

from churn_pipeline import prepare


def main(*args: Any, **kwargs: Any) -> Any:
    """Run the project, or a command of ``table``; takes the options of ``kedro run``."""
    prepare()
    words = list(args[0] if args else sys.argv[1:])
    kwargs = {"standalone_mode": not hasattr(sys, "ps1"), **kwargs}
    if words[:1] == ["table"]:
        return _table(words[1:], **kwargs)
    configure_project(Path(__file__).parent.name)
    from churn_pipeline.cli import run  # noqa: PLC0415 - prepare() chooses the code to import

    return run(*args, **kwargs)


def _table(words: list[str], **kwargs: Any) -> Any:
    from kedro.utils import find_kedro_project  # noqa: PLC0415

    from churn_pipeline.table_commands import table  # noqa: PLC0415

    # Kedro's bootstrap_project() would import the hooks, and with them MLflow.
    metadata = SimpleNamespace(project_path=find_kedro_project(Path.cwd()) or Path(__file__).parents[2])
    return table(words, obj=metadata, prog_name="churn-pipeline table", **kwargs)


if __name__ == "__main__":
    main()
