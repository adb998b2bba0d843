"""Entry point of the installed package: ``churn-pipeline`` does what ``kedro run`` does, also without a checkout.

``churn-pipeline promote …`` and the other commands of this project do what ``kedro promote …`` does, without importing the
commands of Kedro's plugins.
"""

import sys
from types import SimpleNamespace
from typing import Any

from churn_pipeline import prepare
from churn_pipeline.installation import PACKAGE, configured_project


def main(*args: Any, **kwargs: Any) -> Any:
    """Run the project, or a command of it; without a command's name, take the options of ``kedro run``."""
    prepare()
    words = list(args[0] if args else sys.argv[1:])
    kwargs = {"standalone_mode": not hasattr(sys, "ps1"), **kwargs}
    if words[:1] == ["table"]:
        return _table(words[1:], **kwargs)
    # Imported here: prepare() chooses the code and the logging.
    from kedro.framework.project import configure_project  # noqa: PLC0415

    configure_project(PACKAGE.name)
    from churn_pipeline.cli import cli, run  # noqa: PLC0415

    if words and words[0] in cli.commands:
        return cli(words, obj=_metadata(), prog_name="churn-pipeline", **kwargs)
    return run(*args, **kwargs)


def _table(words: list[str], **kwargs: Any) -> Any:
    from churn_pipeline.table_commands import table  # noqa: PLC0415

    return table(words, obj=_metadata(), prog_name="churn-pipeline table", **kwargs)


def _metadata() -> SimpleNamespace:
    # Kedro's bootstrap_project() would import the hooks, and with them MLflow; it also needs a checkout.
    return SimpleNamespace(project_path=configured_project())


if __name__ == "__main__":
    main()
