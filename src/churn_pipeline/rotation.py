"""Rotation of the hold-out: other customers are held out, and the registered models are refitted without them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from kedro.framework.session import KedroSession

from churn_pipeline.configuration import TableConfigLoader
from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.schema import read_contract
from churn_pipeline.installation import CONF_SOURCE, conf_source
from churn_pipeline.promotion import PROMOTED, find_alias

# In the order in which versions are refitted: each is then compared with those before it
ALIASES = ("anchor", "champion", "challenger")


def raise_rotation(file: Path) -> int:
    """Raise ``holdout_rotation`` in a table file by 1, keep all other lines, and return the new number.

    Raises
    ------
    TableError
        If the file has no line to which the key can be added.
    """
    text, number = file.read_text(encoding="utf-8"), read_contract(file).holdout_rotation + 1
    line = f"holdout_rotation: {number}"
    changed, times = re.subn(r"(?m)^holdout_rotation:.*$", line, text)
    if not times:
        changed = re.sub(r"(?m)^roles:", f"{line}\nroles:", text, count=1)
    file.write_text(changed, encoding="utf-8")
    if read_contract(file).holdout_rotation != number:
        file.write_text(text, encoding="utf-8")
        raise TableError(
            f"The table file {file.name}", f"was not changed: add the line '{line}' to it at the top level"
        )
    return number


def rotate(project: Path, table: str) -> dict[str, str]:
    """Hold out other customers of a table, and refit its anchor, champion and challenger.

    Each distinct version is refitted once, with its settings, and its aliases move to the new version. If a refit fails, file
    and aliases are restored.

    Returns
    -------
    dict of str
        The new version by alias.
    """
    loader = _loader(project, table)
    file, model, client = _table_file(loader), loader.name_of("model"), mlflow.MlflowClient()
    found = {alias: find_alias(client, model, alias) for alias in ALIASES}
    held = {alias: str(version.version) for alias, version in found.items() if version is not None}
    with _restored_on_error(client, model, held, file):
        raise_rotation(file)
        refitted: dict[str, str] = {}
        for alias in ALIASES:
            if alias not in held:
                continue
            if held[alias] not in refitted:
                refitted[held[alias]] = _refit(project, table, model, held[alias])
            client.set_registered_model_alias(model, alias, refitted[held[alias]])
            if alias != "challenger":  # each anchor has been champion
                client.set_model_version_tag(model, refitted[held[alias]], PROMOTED, "rotated")
    return {alias: refitted[held[alias]] for alias in ALIASES if alias in held}


def _loader(project: Path, table: str) -> TableConfigLoader:
    session = KedroSession.create(project, runtime_params={"table": table}, conf_source=conf_source(project))
    with session:
        loader = session.load_context().config_loader
        assert isinstance(loader, TableConfigLoader)
        return loader


def _table_file(loader: TableConfigLoader) -> Path:
    file = Path(loader.table_file)
    if not file.is_file():
        raise TableError(
            f"The table file {file.name}",
            f"cannot be changed in {loader.conf_source}: unpack the configuration and set {CONF_SOURCE} to its folder",
        )
    return file


def _refit(project: Path, table: str, model: str, version: str) -> str:
    """Refit a version, and return the number of the new one."""
    params = {"table": table, "refit": {"version": version}}
    session = KedroSession.create(project, runtime_params=params, conf_source=conf_source(project))
    with session:
        session.run(pipeline_names=["refit"])
    return str(mlflow.MlflowClient().get_model_version_by_alias(model, "challenger").version)


@contextmanager
def _restored_on_error(client: mlflow.MlflowClient, model: str, held: dict[str, str], file: Path) -> Iterator[None]:
    text = file.read_text(encoding="utf-8")
    try:
        yield
    except BaseException:
        file.write_text(text, encoding="utf-8")
        for alias, version in held.items():
            client.set_registered_model_alias(model, alias, version)
        raise
