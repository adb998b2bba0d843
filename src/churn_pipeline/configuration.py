"""Configuration: Kedro's loader, extended by the chosen customer table."""

import difflib
import io
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from kedro.config import AbstractConfigLoader, OmegaConfigLoader
from kedro.utils import is_kedro_project
from omegaconf import DictConfig, OmegaConf
from omegaconf.resolvers import oc

from churn_pipeline.contract.errors import ProjectError, TableError
from churn_pipeline.installation import CONF_SOURCE, conf_source, configured_project, project_file, working_project
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

    The configuration is a folder or an archive (tar, zip), local or remote, as in Kedro's own loader.

    ``${table:key}``
        A key of the chosen table's file, such as its ``source``; ``${table:name}`` and ``${table:filepath}`` are the
        table's name and its file. The parameter ``table`` chooses the table (``kedro run --params table=telco``). Its file
        is looked up in the environment's ``tables/``, then in ``conf/local/tables/``, then in ``conf/base/tables/``. The
        first file found is used alone; table files are never merged.
    ``${parameter:name,default}``
        A parameter of the run, ``--params`` included, for use in the catalog; nested keys use dots.
    ``${name:model}``
        ``model_name`` in globals.yml with the chosen table's name in place of ``{table}``; also ``experiment`` and ``bento``.
    ``${project:}``
        The project's folder, so that paths do not depend on the working directory. For a configuration outside a project, the
        working directory.
    ``${project_file:path}``
        A file of the project; if it has none, that of the installed wheel or checkout.
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

    def __init__(self, conf_source: str | Path, *args: Any, **kwargs: Any) -> None:
        fix = f"name a folder or an archive with --conf-source or {CONF_SOURCE}"
        try:
            super().__init__(conf_source, *args, **kwargs)
        except (EOFError, ImportError, OSError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
            problem = f"cannot be opened ({str(error) or type(error).__name__}): {fix}"
            raise ProjectError(f"The configuration {conf_source}", problem) from error
        except ValueError as error:
            if "range requests" not in str(error):
                raise
            problem = "cannot be read from an HTTP server without range requests: pack it as .tar.gz, or download it"
            raise ProjectError(f"The configuration {conf_source}", problem) from error
        if self._protocol == "file" and not self._fs.isdir(self._get_conf_env_path(self.base_env)):
            raise ProjectError(f"There is no configuration in {conf_source}", fix)

    def __getitem__(self, key: str) -> Any:
        # Resolvers are global to the process, so each loader registers its own before it reads.
        resolvers: dict[str, Callable[..., Any]] = {
            "table": self._from_table,
            "parameter": self._parameter,
            "name": self.name_of,
            "project": self._project,
            "project_file": self._project_file,
            "package": _package,
            "tracking_uri": self._tracking_uri,
            "local_artifacts": self._local_artifacts,
            "globals": self._get_globals_value,
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

    def name_of(self, thing: str) -> str:
        """Return the name of the chosen table's ``model``, ``experiment`` or ``bento``, see globals.yml."""
        return str(self._globals.get(f"{thing}_name") or "churn_{table}").replace("{table}", self.table)

    @property
    def table_file(self) -> str:
        """The address of the chosen table's file: a path, or for a remote or packed configuration an address of fsspec.

        Raises
        ------
        TableError
            If no folder has a file of that name. The message lists the existing tables.
        """
        return self._address(self._table_path)

    @property
    def table_text(self) -> str:
        """The text of the chosen table's file."""
        content: bytes = self._fs.cat_file(self._table_path)
        return content.decode("utf-8")

    @property
    def _table_path(self) -> str:
        """The path of the chosen table's file in the configuration's file system."""
        folders = [f"{self._get_conf_env_path(env)}/tables" for env in (self.env, "local", "base") if env]
        for folder in folders:
            if self._fs.isfile(f"{folder}/{self.table}.yml"):
                return f"{folder}/{self.table}.yml"
        known = sorted({Path(file).stem for folder in folders for file in self._fs.glob(f"{folder}/*.yml")})
        raise TableError(
            f"There is no table '{self.table}'",
            f"write conf/local/tables/{self.table}.yml (`kedro table draft` helps), or choose one of {', '.join(known)}",
        )

    def _address(self, path: str) -> str:
        if self._protocol in ("tar", "zip"):
            return f"{self._protocol}://{path}::{self.conf_source}"
        return path if self._protocol == "file" else str(self._fs.unstrip_protocol(path))

    @property
    def data_root(self) -> str:
        """Where the pipelines' files are stored: a folder or an address, without a slash at the end.

        Raises
        ------
        ProjectError
            If no globals.yml names it.
        """
        root = self["globals"].get("data_root")
        if not root:
            raise ProjectError("conf/base/globals.yml", "has no data_root: add `data_root: data`")
        return str(root).rstrip("/")

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
        parent = Path(self.conf_source).resolve().parent
        return str(parent if is_kedro_project(parent) else working_project())

    def _project_file(self, name: str) -> str:
        return str(project_file(Path(self._project()), name))

    def _from_table(self, key: str, default: Any = None) -> Any:
        if key in ("name", "filepath"):
            return self.table if key == "name" else self.table_file
        name = f"{self.table}.yml"
        try:
            content = parse_table(name, self.table_text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f" at line {mark.line + 1} ({getattr(error, 'problem', '')})" if mark else ""
            raise TableError(f"The table file {name}", f"is not valid YAML{where}") from None
        if not isinstance(content, DictConfig) or not content:
            raise TableError(f"The table file {name}", "is empty: draft one with `kedro table draft`")
        value = content.get(key, default)
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


@lru_cache(maxsize=8)
def parse_table(name: str, text: str) -> Any:
    """Parse a table file without resolving it, and refuse one with a password."""
    content = OmegaConf.load(io.StringIO(text))
    refuse_secrets(name, text, OmegaConf.to_container(content))
    return content


def _package() -> str:
    return str(Path(__file__).parent)


# MLflow itself sets MLFLOW_TRACKING_URI to the store in use. Values in this set are such stores, not a user's export.
local_tracking_uris: set[str] = set()


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
    return TableConfigLoader(conf_source(configured_project()), env=os.environ.get("KEDRO_ENV"), **LOADER_ARGS)
