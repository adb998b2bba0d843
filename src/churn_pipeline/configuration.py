"""Configuration: Kedro's loader, extended by the chosen customer table."""

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
from churn_pipeline.table_secrets import refuse_secrets

LOADER_ARGS: dict[str, Any] = {
    "base_env": "base",
    "default_run_env": "local",
    "config_patterns": {"mlflow": ["mlflow*", "mlflow*/**", "**/mlflow*"]},  # kedro-mlflow's pattern
    # An environment's parameters change single keys of base's blocks; the other keys stay.
    "merge_strategy": {"parameters": "soft"},
}


class TableConfigLoader(OmegaConfigLoader):
    """OmegaConfigLoader with more resolvers.

    ``${table:key}``
        A key of the chosen table's file, such as its ``source``; ``${table:name}`` and ``${table:filepath}`` are the
        table's name and its file. The parameter ``table`` chooses the table (``kedro run --params table=telco``). Its file
        is looked up in the environment's ``tables/``, then in ``conf/local/tables/``, then in ``conf/base/tables/``. The
        first file found is used alone; table files are never merged.
    ``${parameter:name,default}``
        A parameter of the run, ``--params`` included, for use in the catalog; nested keys use dots.
    ``${project:}``
        The project's folder, so that paths do not depend on the working directory.
    ``${package:}``
        The folder of this package's code.
    ``${tracking_uri:}``
        ``MLFLOW_TRACKING_URI`` if it is exported, otherwise the project's own MLflow database.
    ``${local_artifacts:}``
        The folder of MLflow's artifacts beside the project's own database; None if ``MLFLOW_TRACKING_URI`` is exported.
    ``${oc.env:NAME,default}``
        An environment variable. Kedro itself allows this for credentials only.
    """

    _default_table: str | None = None
    _parameters: dict[str, Any] | None = None

    def __getitem__(self, key: str) -> Any:
        # Resolvers are global to the process, so each loader registers its own before it reads.
        resolvers: dict[str, Callable[..., Any]] = {
            "table": self._from_table,
            "parameter": self._parameter,
            "project": self._project,
            "package": _package,
            "tracking_uri": self._tracking_uri,
            "local_artifacts": self._local_artifacts,
            "oc.env": oc.env,
        }
        for name, resolver in resolvers.items():
            OmegaConf.register_resolver(name, resolver, replace=True, annotation_validation="off")
        return super().__getitem__(key)

    @property
    def table(self) -> str:
        """The chosen table's name."""
        chosen = (self.runtime_params or {}).get("table")
        if chosen is None:
            # Cached: every catalog entry needs it, and reading all parameters takes 0.1 s.
            self._default_table = chosen = self._default_table or self["parameters"]["table"]
        return str(chosen)

    @property
    def table_file(self) -> Path:
        """The chosen table's file.

        Raises
        ------
        TableError
            If no folder has a file of that name. The message lists the existing tables.
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
        """Check that every ``--params`` name is a parameter; Kedro itself accepts any name.

        Raises
        ------
        ProjectError
            If a name is not a top-level parameter in conf/. The message suggests the nearest one.
        """
        if not self.runtime_params:
            return
        from_files = TableConfigLoader(self.conf_source, env=self.env, **LOADER_ARGS)
        known = list(from_files["parameters"])
        for name in self.runtime_params.keys() - set(known):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(known)}."
            raise ProjectError(
                f"There is no parameter '{name}'", f"{hint} --params accepts only parameters defined in conf/."
            )

    def _parameter(self, name: str, default: Any = None) -> Any:
        *blocks, last = name.split(".")
        # Read once: several catalog entries use this resolver, and reading all parameters takes 0.1 s.
        self._parameters = block = self._parameters or self["parameters"]
        for part in blocks:
            block = block.get(part, {})
        return block.get(last, default)

    def _tracking_uri(self) -> str:
        return self._exported_tracking_uri() or self._local_tracking_uri()

    def _local_tracking_uri(self) -> str:
        uri = f"sqlite:///{self._project()}/mlruns/mlflow.db"
        local_tracking_uris.add(uri)
        return uri

    def _exported_tracking_uri(self) -> str | None:
        # A reloaded module has an empty set, as after %reload_kedro: the project's own store is never an export.
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        return uri if uri and uri not in {self._local_tracking_uri(), *local_tracking_uris} else None

    def _local_artifacts(self) -> str | None:
        # MLflow sends an experiment's artifact location to the server, where a local path is wrong.
        return None if self._exported_tracking_uri() else (Path(self._project()) / "mlruns" / "artifacts").as_uri()

    def _project(self) -> str:
        return str(Path(self.conf_source).resolve().parent)

    def _from_table(self, key: str, default: Any = None) -> Any:
        if key in ("name", "filepath"):
            return self.table if key == "name" else str(self.table_file)
        try:
            content = load_table(self.table_file, self.table_file.stat().st_mtime_ns)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f" at line {mark.line + 1} ({getattr(error, 'problem', '')})" if mark else ""
            raise TableError(f"The table file {self.table_file.name}", f"is not valid YAML{where}") from None
        if not isinstance(content, DictConfig) or not content:
            raise TableError(f"The table file {self.table_file.name}", "is empty: draft one with `kedro table draft`")
        value = content.get(key, default)
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


@lru_cache(maxsize=8)
def load_table(file: Path, _modified_ns: int = 0) -> Any:  # the time makes the cache reload a changed file
    """Load a table file without resolving it, and refuse one with a password."""
    content = OmegaConf.load(file)
    refuse_secrets(file.name, file.read_text(encoding="utf-8"), OmegaConf.to_container(content))
    return content


def _package() -> str:
    return str(Path(__file__).parent)


# MLflow itself sets MLFLOW_TRACKING_URI to the store in use. Values in this set are such stores, not a user's export.
local_tracking_uris: set[str] = set()


def check_server(address: str | None) -> None:
    """Check once that the MLflow tracking server answers, if its address is HTTP(S).

    Raises
    ------
    ProjectError
        If there is no answer within ten seconds.
    """
    if not address or not address.startswith(("http://", "https://")):
        return
    try:
        urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=10).close()  # noqa: S310 - HTTP(S), see above
    except urllib.error.HTTPError:
        pass  # the server answers, for example that a login is required
    except OSError:
        raise ProjectError(
            f"The MLflow tracking server {address}",
            "does not answer: start it, correct MLFLOW_TRACKING_URI, or unset it (and leave out `--env production`) to "
            "record on this machine",
        ) from None


current_loader: list[AbstractConfigLoader] = []


def use_configuration(loader: AbstractConfigLoader) -> None:
    """Build pipelines from the configuration of the newly created Kedro context."""
    current_loader[:] = [loader]


def configured_candidates() -> list[str]:
    """List the candidates in conf, in their order; modelling has a namespace for each.

    Under ``kedro run`` they come from the run's context, with its environment and runtime parameters. ``kedro registry
    describe`` and ``kedro viz build`` list pipelines before there is a context. Then the project's configuration is
    read here, for the environment in ``KEDRO_ENV``.

    Raises
    ------
    ProjectError
        If there is no candidate. One whose block is null is switched off.
    """
    loader = current_loader[0] if current_loader else _project_loader()
    candidates = loader["parameters"].get("candidates") or {}
    names = [name for name, block in candidates.items() if block is not None]
    if not names:
        raise ProjectError("There are no candidates", "name at least one under `candidates:` in the parameters")
    return names


def _project_loader() -> AbstractConfigLoader:
    project = find_kedro_project(Path.cwd()) or Path(__file__).parents[2]
    return TableConfigLoader(str(project / settings.CONF_SOURCE), env=os.environ.get("KEDRO_ENV"), **LOADER_ARGS)
