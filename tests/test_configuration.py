"""Configuration: the chosen table, merged parameters, the tracking store, several loaders, and the candidates."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from deploy.local_servers import Servers
from kedro.config import OmegaConfigLoader
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from s3fs import S3FileSystem

from churn_pipeline import configuration
from churn_pipeline.command_errors import actionable
from churn_pipeline.configuration import LOADER_ARGS, TableConfigLoader, configured_candidates, use_configuration
from churn_pipeline.contract.errors import ProjectError, TableError
from churn_pipeline.contract.schema import read_contract
from churn_pipeline.datasets import ContractDataset
from tests.conftest import ROOT
from tests.customers import table_file

CATALOG = {
    "raw": "${table:source}",
    "truth": "${table:truth,null}",
    "contract": {"filepath": "${table:filepath}"},
    "report": {"type": "json.JSONDataset", "filepath": "${project:}/data/${table:name}/report.json"},
}
PYPROJECT = '[tool.kedro]\npackage_name = "p"\nproject_name = "p"\nkedro_init_version = "1.7.0"\n'


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")


def table(folder: Path, name: str, said: str, **more: Any) -> None:
    write(
        folder / "tables" / f"{name}.yml", {"source": {"type": "pandas.CSVDataset", "filepath": f"{said}.csv"}, **more}
    )


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """Tables: `everywhere` in base, local and production; `local` in base and local; `plain` only in base."""
    conf = tmp_path / "conf"
    write(conf.parent / "pyproject.toml", PYPROJECT)
    write(conf / "base" / "parameters.yml", {"table": "plain", "candidates": {"one": {}, "two": {}}})
    write(conf / "base" / "catalog.yml", CATALOG)
    write(conf / "base" / "globals.yml", {})
    for env, names in (
        ("base", ("everywhere", "local", "plain")),
        ("local", ("everywhere", "local")),
        ("production", ("everywhere",)),
    ):
        for name in names:
            table(conf / env, name, f"{env}/{name}")
    return conf


def loader(conf: Path, env: str | None = None, **runtime: Any) -> TableConfigLoader:
    return TableConfigLoader(str(conf), env=env, runtime_params=runtime, **LOADER_ARGS)


def source(conf: Path, env: str | None, name: str) -> str:
    return str(loader(conf, env, table=name)["catalog"]["raw"]["filepath"])


# ---- which table -----------------------------------------------------------------------------------------------------


def test_a_table_is_searched_in_the_environment_then_in_local_then_in_base(conf: Path) -> None:
    assert source(conf, "production", "everywhere") == "production/everywhere.csv"
    assert source(conf, "production", "local") == "local/local.csv"
    assert source(conf, "production", "plain") == "base/plain.csv"
    for env in (None, "local", "base"):
        assert source(conf, env, "plain") == "base/plain.csv"
    assert source(conf, None, "everywhere") == "local/everywhere.csv"
    assert source(conf, "local", "local") == "local/local.csv"


def test_the_base_environment_alone_still_finds_private_tables(conf: Path) -> None:
    table(conf / "local", "mine", "local/mine")
    assert source(conf, "base", "mine") == "local/mine.csv"


def test_the_runtime_parameter_overrides_the_parameter(conf: Path) -> None:
    assert loader(conf).table == "plain"
    assert loader(conf, table="local").table == "local"
    write(conf / "production" / "parameters.yml", {"table": "everywhere"})
    assert loader(conf, "production").table == "everywhere"
    assert loader(conf, "production", table="plain").table == "plain"


def test_a_table_file_is_never_merged_with_another(conf: Path) -> None:
    table(conf / "base", "local", "base", truth={"type": "x"})
    catalog = loader(conf, table="local")["catalog"]
    assert catalog["raw"] == {"type": "pandas.CSVDataset", "filepath": "local/local.csv"}
    assert catalog["truth"] is None


def test_the_catalog_can_use_the_tables_name_and_file_and_the_project(conf: Path) -> None:
    catalog = loader(conf, table="local")["catalog"]
    assert catalog["contract"]["filepath"] == str(conf / "local" / "tables" / "local.yml")
    assert catalog["report"]["filepath"] == f"{conf.parent}/data/local/report.json"


def test_the_catalog_can_use_a_parameter_of_the_run(conf: Path) -> None:
    write(conf / "base" / "catalog_more.yml", {"version": "${parameter:packaging.model,none}"})
    write(conf / "base" / "parameters_packaging.yml", {"packaging": {"model": None}})
    assert loader(conf)["catalog"]["version"] is None
    assert loader(conf, packaging={"model": "7"})["catalog"]["version"] == "7"
    write(conf / "production" / "parameters.yml", {"packaging": {"model": "champion"}})
    assert loader(conf, "production")["catalog"]["version"] == "champion"
    write(conf / "local" / "parameters.yml", {"seed": 1})
    assert loader(conf, packaging={"tolerance": 0.1})["catalog"]["version"] is None
    write(conf / "base" / "parameters_packaging.yml", {"packaging": {"tolerance": 0.1}})
    assert loader(conf)["catalog"]["version"] == "none"


def test_names_are_settings_that_an_environment_overrides_one_by_one(conf: Path) -> None:
    write(conf / "base" / "catalog_more.yml", {"names": ["${name:model}", "${name:experiment}", "${name:bento}"]})
    assert loader(conf)["catalog"]["names"] == ["churn_plain"] * 3
    write(conf / "base" / "globals.yml", {"model_name": "churn_{table}", "experiment_name": "all tables"})
    write(conf / "production" / "globals.yml", {"model_name": "main.churn.{table}"})
    named = loader(conf, "production", table="local")
    assert named["catalog"]["names"] == ["main.churn.local", "all tables", "churn_local"]
    assert named.name_of("model") == "main.churn.local"
    assert loader(conf, table="local").name_of("model") == "churn_local"


def test_the_project_folder_does_not_depend_on_the_working_directory(
    conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert loader(Path("conf"))["catalog"]["report"]["filepath"] == f"{tmp_path}/data/plain/report.json"


def test_an_unknown_table_lists_the_existing_ones(conf: Path) -> None:
    table(conf / "local", "mine", "mine")
    with pytest.raises(TableError) as caught:
        _ = loader(conf, table="tleco").table_file
    said = str(caught.value)
    assert "There is no table 'tleco'" in said
    assert "conf/local/tables/tleco.yml" in said
    assert "choose one of everywhere, local, mine, plain" in said


def test_an_empty_table_file_is_an_error(conf: Path) -> None:
    write(conf / "local" / "tables" / "plain.yml", "# nothing yet\n")
    with pytest.raises(Exception, match=r"The table file plain\.yml:\n  - is empty: draft one"):
        _ = loader(conf)["catalog"]


def test_environment_variables_are_read_in_catalogs_and_tables(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(conf / "base", "plain", "${oc.env:SOME_FOLDER,data}/x")
    monkeypatch.delenv("SOME_FOLDER", raising=False)
    assert source(conf, None, "plain") == "data/x.csv"
    monkeypatch.setenv("SOME_FOLDER", "/else")
    assert source(conf, None, "plain") == "/else/x.csv"


# ---- several loaders -------------------------------------------------------------------------------------------------


def test_two_loaders_use_their_own_resolvers(conf: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "conf"
    write(other.parent / "pyproject.toml", PYPROJECT)
    write(other / "base" / "parameters.yml", {"table": "theirs"})
    write(other / "base" / "catalog.yml", CATALOG)
    table(other / "base", "theirs", "theirs")
    (other / "local").mkdir()
    mine, theirs, local = loader(conf), loader(other), loader(conf, table="local")
    for _ in range(2):
        assert mine["catalog"]["raw"]["filepath"] == "base/plain.csv"
        assert theirs["catalog"]["raw"]["filepath"] == "theirs.csv"
        assert theirs["catalog"]["report"]["filepath"] == f"{other.parent}/data/theirs/report.json"
        assert local["catalog"]["raw"]["filepath"] == "local/local.csv"


def test_kedros_own_loader_is_not_disturbed(conf: Path, tmp_path: Path) -> None:
    _ = loader(conf)["catalog"]
    write(tmp_path / "plain" / "base" / "catalog.yml", {"a": {"filepath": "x/${b}"}, "b": "y"})
    plain = OmegaConfigLoader(str(tmp_path / "plain"), base_env="base", default_run_env="base")
    assert plain["catalog"]["a"]["filepath"] == "x/y"


def test_resolvers_are_global_and_the_last_reader_answers(conf: Path) -> None:
    _ = loader(conf)["parameters"]
    assert OmegaConf.to_container(OmegaConf.create({"name": "${table:name}"}), resolve=True) == {"name": "plain"}


# ---- how environments and parameters merge ---------------------------------------------------------------------------


def test_a_local_candidate_joins_those_of_base(conf: Path) -> None:
    write(conf / "local" / "parameters.yml", {"candidates": {"mine": {"trials": 1}}})
    assert list(loader(conf)["parameters"]["candidates"]) == ["one", "two", "mine"]


def test_a_local_value_changes_one_key_of_a_block(conf: Path) -> None:
    write(
        conf / "base" / "parameters_search.yml", {"search": {"trials": 8, "seconds": None}, "metrics": ["auc", "brier"]}
    )
    write(conf / "local" / "parameters.yml", {"search": {"trials": 2}, "metrics": ["auc"]})
    parameters = loader(conf)["parameters"]
    assert parameters["search"] == {"trials": 2, "seconds": None}
    assert parameters["metrics"] == ["auc"]  # a list is replaced as a whole


@pytest.mark.parametrize("env", ["local", "production"])
def test_a_runtime_parameter_changes_one_key_whatever_the_environment_has(conf: Path, env: str) -> None:
    write(conf / "base" / "parameters_search.yml", {"search": {"trials": 8, "seconds": 60}})
    for content in ({}, {"seed": 1}, {"search": {"trials": 4}}):
        write(conf / env / "parameters.yml", content)
        assert loader(conf, env, search={"trials": 2})["parameters"]["search"] == {"trials": 2, "seconds": 60}


def test_a_list_in_place_of_a_block_is_a_mistake_in_the_configuration(conf: Path) -> None:
    write(conf / "base" / "parameters_search.yml", {"metrics": ["auc"]})
    write(conf / "local" / "parameters.yml", {"metrics": {"auc": 1}})
    with pytest.raises(TypeError) as caught:
        _ = loader(conf)["parameters"]
    assert str(actionable(caught.value)).startswith("The configuration has mistakes:")


# ---- where files are stored ------------------------------------------------------------------------------------------


def stored(table: str, env: str | None = None) -> TableConfigLoader:
    return TableConfigLoader(str(ROOT / "conf"), env=env, runtime_params={"table": table}, **LOADER_ARGS)


def places(block: Any) -> Iterator[str]:
    """Every file and folder that a configuration names."""
    for key, value in block.items():
        if isinstance(value, dict):
            yield from places(value)
        elif key in ("filepath", "path"):
            yield value


@pytest.mark.parametrize("table", ["simulated", "simulated_monthly", "iranian", "mlc_churn", "telco"])
def test_production_stores_every_file_under_its_data_root(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHURN_PUBLIC_DATA", raising=False)
    monkeypatch.setenv("CHURN_DATA_ROOT", "s3://team/churn")
    here, there = ({*places(stored(table, env)["catalog"])} for env in ("base", "production"))
    in_project = {str(stored(table).table_file), str(ROOT / "requirements/serving.txt"), f"bentos/churn_{table}.bento"}
    assert {re.sub("^data(?=/|$)", "s3://team/churn", place) for place in here - in_project} == there - in_project
    assert in_project <= here & there


def test_each_loader_has_its_own_data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_DATA_ROOT", "s3://team/churn")
    monkeypatch.setenv("CHURN_STUDIES", "postgresql+psycopg://churn@host/churn")
    there, here = stored("telco", "production"), stored("telco", "base")
    assert there["catalog"]["leaks"]["filepath"].startswith("s3://team/churn/")
    assert here["catalog"]["leaks"]["filepath"].startswith("data/")
    assert (there.data_root, there["globals"]["studies"]) == (
        "s3://team/churn",
        "postgresql+psycopg://churn@host/churn",
    )
    assert (here.data_root, here["globals"]["studies"]) == ("data", None)


def test_production_requires_a_data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHURN_DATA_ROOT", raising=False)
    with pytest.raises(OmegaConfBaseException) as caught:
        _ = stored("telco", "production")
    assert "the environment variable 'CHURN_DATA_ROOT' is not set: export it" in str(actionable(caught.value))


def test_globals_without_a_data_root_are_explained(conf: Path) -> None:
    with pytest.raises(ProjectError, match=r"globals\.yml:\n  - has no data_root: add `data_root: data`"):
        _ = loader(conf).data_root


# ---- where runs are recorded -----------------------------------------------------------------------------------------


@pytest.fixture
def mlflow_conf(conf: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's own mlflow.yml files, and no exported address."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    for env in ("base", "production"):
        write(conf / env / "mlflow.yml", (ROOT / "conf" / env / "mlflow.yml").read_text(encoding="utf-8"))
    return conf


def artifact_location(mlflow: dict[str, Any]) -> Any:
    return mlflow["tracking"]["experiment"]["create_experiment_kwargs"]["artifact_location"]


def test_without_an_exported_address_runs_stay_in_the_project(mlflow_conf: Path) -> None:
    mlflow = loader(mlflow_conf)["mlflow"]
    assert mlflow["server"] == {"mlflow_tracking_uri": f"sqlite:///{mlflow_conf.parent}/mlruns/mlflow.db"}
    assert artifact_location(mlflow) == f"file://{mlflow_conf.parent}/mlruns/artifacts"
    assert mlflow["tracking"]["experiment"]["name"] == "churn_plain"


@pytest.mark.parametrize("env", ["local", "production"])
def test_an_exported_address_is_used_and_gets_no_local_path(
    env: str, mlflow_conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.com")
    mlflow = loader(mlflow_conf, env)["mlflow"]
    assert mlflow["server"]["mlflow_tracking_uri"] == "https://mlflow.example.com"
    assert artifact_location(mlflow) is None
    assert str(mlflow_conf.parent) not in str(mlflow)


def test_the_projects_own_store_is_no_export_after_the_package_was_reloaded(
    mlflow_conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", loader(mlflow_conf)["mlflow"]["server"]["mlflow_tracking_uri"])
    monkeypatch.setattr(configuration, "local_tracking_uris", set())
    assert artifact_location(loader(mlflow_conf)["mlflow"]) is not None


def test_an_address_that_mlflow_exports_itself_is_ignored(
    mlflow_conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", loader(mlflow_conf)["mlflow"]["server"]["mlflow_tracking_uri"])
    other = tmp_path / "other" / "conf"
    write(other.parent / "pyproject.toml", PYPROJECT)
    for file in mlflow_conf.rglob("*.yml"):
        write(other / file.relative_to(mlflow_conf), file.read_text(encoding="utf-8"))
    mlflow = loader(other)["mlflow"]
    assert mlflow["server"]["mlflow_tracking_uri"] == f"sqlite:///{other.parent}/mlruns/mlflow.db"
    assert artifact_location(mlflow) is not None


def test_production_requires_an_address_and_takes_the_rest_from_base(
    mlflow_conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OmegaConfBaseException, match="MLFLOW_TRACKING_URI"):
        _ = loader(mlflow_conf, "production")["mlflow"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.com")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "https://registry.example.com")
    base, production = loader(mlflow_conf)["mlflow"], loader(mlflow_conf, "production")["mlflow"]
    assert production["tracking"] == base["tracking"]
    assert production["server"] == {**base["server"], "mlflow_registry_uri": "https://registry.example.com"}


@pytest.mark.parametrize(
    ("file", "ignored"),
    [
        ("conf/production/credentials.yml", True),
        ("conf/production/aws_credentials.json", True),
        ("conf/base/credentials_mlflow.yml", True),
        ("conf/production/.env", True),
        ("conf/team/deep/.env", True),
        ("conf/local/parameters.yml", True),
        ("conf/production/mlflow.yml", False),
        ("conf/base/parameters.yml", False),
        ("conf/base/credentials_from_environment.yml", False),
    ],
)
def test_git_ignores_credentials_in_every_environment(file: str, ignored: bool) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    checked = subprocess.run(["git", "check-ignore", "--no-index", "--quiet", file], cwd=ROOT, check=False)
    assert checked.returncode == (0 if ignored else 1)


# ---- candidates ------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_context() -> Iterator[None]:
    """Remove the current loader during a test."""
    before = list(configuration.current_loader)
    configuration.current_loader.clear()
    yield
    configuration.current_loader[:] = before


@pytest.mark.usefixtures("no_context")
def test_candidates_are_those_of_the_context_in_use(conf: Path) -> None:
    use_configuration(loader(conf))
    assert configured_candidates() == ["one", "two"]
    write(conf / "production" / "parameters.yml", {"candidates": {"three": {}}})
    use_configuration(loader(conf, "production"))
    assert configured_candidates() == ["one", "two", "three"]


@pytest.mark.usefixtures("no_context")
def test_a_candidate_whose_block_is_null_is_switched_off(conf: Path) -> None:
    write(conf / "local" / "parameters.yml", {"candidates": {"one": None, "mine": {}}})
    use_configuration(loader(conf))
    assert configured_candidates() == ["two", "mine"]


@pytest.mark.usefixtures("no_context")
def test_without_a_context_the_projects_configuration_is_read_for_the_environment(
    conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(conf.parent)
    monkeypatch.delenv("KEDRO_ENV", raising=False)
    assert configured_candidates() == ["one", "two"]
    write(conf / "production" / "parameters.yml", {"candidates": {"three": {}}})
    monkeypatch.setenv("KEDRO_ENV", "production")
    assert configured_candidates() == ["one", "two", "three"]


@pytest.mark.usefixtures("no_context")
def test_outside_any_project_this_projects_own_candidates_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KEDRO_ENV", raising=False)
    assert "logistic" in configured_candidates()


@pytest.mark.usefixtures("no_context")
@pytest.mark.parametrize("candidates", [{}, None])
def test_no_candidates_are_a_clear_error(conf: Path, candidates: object) -> None:
    write(conf / "base" / "parameters.yml", {"table": "plain", "candidates": candidates})
    use_configuration(loader(conf))
    with pytest.raises(ProjectError, match="name at least one under `candidates:`"):
        configured_candidates()


# ---- packed and remote configuration ---------------------------------------------------------------------------------


def packed(conf: Path, name: str) -> Path:
    """The configuration as an archive in a folder of its own."""
    kind = {".zip": "zip"}.get(Path(name).suffix, "gztar")
    archive = shutil.make_archive(str(conf.parent / "packed" / "conf"), kind, conf.parent, "conf")
    return Path(archive).rename(conf.parent / "packed" / name)


@pytest.fixture(params=["conf.tar.gz", "conf.zip"])
def archive(request: pytest.FixtureRequest, conf: Path) -> Path:
    write(conf / "base" / "tables" / "plain.yml", {"source": {"filepath": "x.csv"}, **table_file()})
    return packed(conf, request.param)


def test_tables_are_found_in_an_archive_in_the_same_order_as_in_a_folder(archive: Path) -> None:
    assert source(archive, None, "plain") == "x.csv"
    assert source(archive, None, "local") == "local/local.csv"
    assert source(archive, "production", "everywhere") == "production/everywhere.csv"
    assert source(archive, "production", "plain") == "x.csv"


def test_an_unknown_table_in_an_archive_lists_the_existing_ones(archive: Path) -> None:
    with pytest.raises(TableError, match="choose one of everywhere, local, plain"):
        _ = loader(archive, table="tleco").table_file


def test_the_contract_and_its_text_are_read_from_an_archive(conf: Path, archive: Path) -> None:
    opened = loader(archive)
    filepath = opened["catalog"]["contract"]["filepath"]
    file = conf / "base" / "tables" / "plain.yml"

    assert opened.table_text == loader(conf).table_text == file.read_text(encoding="utf-8")
    assert read_contract(filepath) == read_contract(file)
    assert ContractDataset(filepath).exists()
    assert ContractDataset(filepath).load().name == "plain"
    assert not ContractDataset(filepath.replace("plain.yml", "other.yml")).exists()


def test_an_archive_is_read_by_http(conf: Path) -> None:
    write(conf / "base" / "tables" / "plain.yml", {"source": {"filepath": "x.csv"}, **table_file()})
    archive = packed(conf, "conf.tar.gz")
    serve = partial(SimpleHTTPRequestHandler, directory=str(archive.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        opened = TableConfigLoader(
            f"http://127.0.0.1:{server.server_port}/{archive.name}", runtime_params={}, **LOADER_ARGS
        )
        catalog = opened["catalog"]

        assert catalog["raw"]["filepath"] == "x.csv"
        assert read_contract(catalog["contract"]["filepath"]).name == "plain"
        server.shutdown()


def test_a_zip_on_a_server_without_range_requests_is_one_message(conf: Path) -> None:
    archive = packed(conf, "conf.zip")
    serve = partial(SimpleHTTPRequestHandler, directory=str(archive.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(ProjectError, match=r"without range requests: pack it as \.tar\.gz"):
            loader(f"http://127.0.0.1:{server.server_port}/{archive.name}")
        server.shutdown()


@pytest.mark.parametrize("name", ["conf", "conf.tar.gz", "conf.zip", "broken.tar.gz", "broken.zip"])
def test_a_configuration_that_is_missing_or_broken_is_one_message(tmp_path: Path, name: str) -> None:
    if name.startswith("broken"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(ProjectError, match="name a folder or an archive with --conf-source or CHURN_CONF_SOURCE"):
        loader(tmp_path / name)


def test_runs_with_a_configuration_outside_a_project_write_to_the_working_directory(
    archive: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path_factory.mktemp("empty")
    unpacked = tmp_path_factory.mktemp("elsewhere")
    shutil.unpack_archive(archive, unpacked)
    monkeypatch.chdir(empty)

    for address in (archive, unpacked / "conf"):
        assert loader(address)["catalog"]["report"]["filepath"] == f"{empty}/data/plain/report.json"


@pytest.mark.slow
def test_tables_are_found_on_s3_in_a_folder_and_in_an_archive(
    conf: Path, archive: Path, s3: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    root = f"{s3.environment()['CHURN_DATA_ROOT']}/{archive.name}"
    S3FileSystem().put(str(conf), f"{root}/conf", recursive=True)
    S3FileSystem().put_file(str(archive), f"{root}/{archive.name}")

    for address in (f"{root}/conf", f"{root}/{archive.name}"):
        opened = TableConfigLoader(address, runtime_params={}, **LOADER_ARGS)
        assert opened["catalog"]["raw"]["filepath"] == "x.csv"
        assert read_contract(opened["catalog"]["contract"]["filepath"]).name == "plain"
        assert opened.table_text == loader(conf).table_text
    S3FileSystem.clear_instance_cache()
