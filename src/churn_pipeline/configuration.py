"""Configuration: Kedro's own loader, and what it needs to know of the chosen customer table."""

import difflib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from kedro.config import AbstractConfigLoader, OmegaConfigLoader
from kedro.framework.project import settings
from kedro.utils import find_kedro_project
from omegaconf import DictConfig, OmegaConf
from omegaconf.resolvers import oc

from churn_pipeline.contract.errors import ProjectError, TableError


class TableConfigLoader(OmegaConfigLoader):
    """OmegaConfigLoader with five more resolvers.

    ``${table:key}``
        A key of the chosen table's file, such as its ``source``; ``${table:name}`` and
        ``${table:filepath}`` are the table's name and the file itself. The table is
        chosen by the parameter ``table`` (``kedro run --params table=telco``) and is looked for in the environment's
        ``tables/``, then in ``conf/local/tables/``, then in ``conf/base/tables/``: a private table combines with
        any environment, and a file is never merged with another's.
    ``${parameter:name,default}``
        A parameter as the run has it, ``--params`` included, for what a dataset has to know; its parts are named with dots.
    ``${project:}``
        The project's folder, so that paths do not depend on the folder a command starts from.
    ``${package:}``
        The folder of this package's code, wherever it is installed.
    ``${oc.env:NAME,default}``
        An environment variable; Kedro allows it for credentials only.
    """

    _default_table: str | None = None
    _parameters: dict[str, Any] | None = None

    def __getitem__(self, key: str) -> Any:
        # Resolvers are global to the process: they must answer for the loader that is reading right now.
        resolvers: dict[str, Callable[..., Any]] = {
            "table": self._from_table,
            "parameter": self._parameter,
            "project": self._project,
            "package": _package,
            "oc.env": oc.env,
        }
        for name, resolver in resolvers.items():
            OmegaConf.clear_resolver(name)
            OmegaConf.register_resolver(name, resolver)
        return super().__getitem__(key)

    @property
    def table(self) -> str:
        """The chosen table's name."""
        chosen = (self.runtime_params or {}).get("table")
        if chosen is None:
            # Read once: each entry of the catalog asks for it, and reading all parameters takes 0.1 s.
            self._default_table = chosen = self._default_table or self["parameters"]["table"]
        return str(chosen)

    @property
    def table_file(self) -> Path:
        """The chosen table's file.

        Raises
        ------
        TableError
            When no environment has a file of that name; it lists the tables that there are.
        """
        folders = [Path(self.conf_source) / env / "tables" for env in (self.env, "local", "base") if env]
        for folder in folders:
            if (folder / f"{self.table}.yml").is_file():
                return folder / f"{self.table}.yml"
        known = sorted({file.stem for folder in folders for file in folder.glob("*.yml")})
        raise TableError(
            f"There is no table '{self.table}'",
            f"write conf/local/tables/{self.table}.yml (`kedro table draft` helps), or choose one of {', '.join(known)}",
        )

    def check_runtime_params(self) -> None:
        """Hold what ``--params`` says to the parameters that there are: Kedro takes any name.

        Raises
        ------
        TableError
            When it names one that no file of conf has.
        """
        if not self.runtime_params:
            return
        given = TableConfigLoader(
            self.conf_source, env=self.env, base_env=self.base_env, default_run_env=self.default_run_env
        )
        known = list(given["parameters"])
        for name in self.runtime_params.keys() - set(known):
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}."
            raise ProjectError(
                f"There is no parameter '{name}'", f"{meant} --params takes what the files in conf/ have."
            )

    def _parameter(self, name: str, default: Any = None) -> Any:
        # Where an environment has parameters of its own, Kedro lets ``--params a.b=1`` take the place of all of ``a``.
        *blocks, last = name.split(".")
        # Read once: several catalog entries use this resolver, and reading all parameters takes 0.1 s.
        self._parameters = block = self._parameters or self["parameters"]
        for part in blocks:
            block = block.get(part, {})
        return block.get(last, default)

    def _project(self) -> str:
        return str(Path(self.conf_source).resolve().parent)

    def _from_table(self, key: str, default: Any = None) -> Any:
        if key in ("name", "filepath"):
            return self.table if key == "name" else str(self.table_file)
        try:
            content = _load_table(self.table_file, self.table_file.stat().st_mtime_ns)
        except yaml.YAMLError as error:
            raise TableError(f"The table file {self.table_file.name}", f"is not valid YAML: {error}") from None
        if not isinstance(content, DictConfig) or not content:
            raise TableError(f"The table file {self.table_file.name}", "is empty: draft one with `kedro table draft`")
        value = content.get(key, default)
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


@lru_cache(maxsize=8)
def _load_table(file: Path, _changed: int) -> Any:
    return OmegaConf.load(file)


def _package() -> str:
    return str(Path(__file__).parent)


def find_server(address: str | None) -> None:
    """Ask once whether an MLflow tracking server answers, where the address is one of HTTP.

    Raises
    ------
    TableError
        When nobody answers within ten seconds.
    """
    if not address or not address.startswith(("http://", "https://")):
        return
    try:
        urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=10).close()  # noqa: S310 - of HTTP, see above
    except urllib.error.HTTPError:
        pass  # an answer, such as that one must log in
    except OSError:
        raise ProjectError(
            f"The MLflow tracking server {address}",
            "does not answer: start it, correct MLFLOW_TRACKING_URI, or leave `--env` out to record on this machine",
        ) from None


_in_use: list[AbstractConfigLoader] = []


def use_configuration(loader: AbstractConfigLoader) -> None:
    """Make the configuration of the Kedro context that was just created the one that pipelines are built from."""
    _in_use[:] = [loader]


def configured_candidates() -> list[str]:
    """The candidates' names in conf, in their order: modelling has a namespace for each.

    Under ``kedro run`` they come from the run's own context, with its environment and runtime parameters. ``kedro registry
    describe`` and ``kedro viz build`` list pipelines before there is a context; then the project's configuration is
    read here, for the environment that ``KEDRO_ENV`` names.
    """
    loader = _in_use[0] if _in_use else _project_loader()
    candidates = loader["parameters"].get("candidates")
    if not candidates:
        raise ProjectError("There are no candidates", "name at least one under `candidates:` in the parameters")
    return list(candidates)


def _project_loader() -> AbstractConfigLoader:
    project = find_kedro_project(Path.cwd()) or Path(__file__).parents[2]
    return TableConfigLoader(
        str(project / settings.CONF_SOURCE), env=os.environ.get("KEDRO_ENV"), **settings.CONFIG_LOADER_ARGS
    )
