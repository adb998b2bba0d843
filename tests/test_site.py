"""The documentation site builds strictly, its links work, and the commands, parameters and paths on its pages exist."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import reduce
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import click
import pytest
import yaml
from kedro.framework.cli.cli import KedroCLI
from omegaconf import OmegaConf

from churn_pipeline.costs import CostModel
from churn_pipeline.evaluation.metrics import greater_is_better, resolve_metric
from churn_pipeline.modelling.candidates import Candidate
from churn_pipeline.serving.environment import secret_fields
from churn_pipeline.serving.settings import PREFIX, Settings
from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = {
    str(file.relative_to(ROOT)): file.read_text(encoding="utf-8")
    for file in (*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md")
}
# Elements and attributes that make a browser load something. An `a` is only followed when a reader clicks it.
LOADED = {("link", "href"), ("script", "src"), ("img", "src"), ("source", "src"), ("iframe", "src"), ("use", "href")}
SOURCES = (
    "conf/base",
    "docs",
    "notebooks",
    "benchmarks/results",
    "data/01_raw/simulated_customers.csv",
    "src",
    "Makefile",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
)
HERE = "http://site/"


class Page(HTMLParser):
    """The links, loaded files and anchors of a built page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.diagrams = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        self.diagrams += "mermaid" in given.get("class", "")  # only a script could draw it
        self.links += [given["href"]] if tag == "a" and "href" in given else []
        canonical = given.get("rel") in ("canonical", "next", "prev")
        self.loads += [value for name, value in given.items() if (tag, name) in LOADED and not canonical]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site in a temporary folder, built as by `make docs`."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "zensical.toml", folder)
    for name in SOURCES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV_")}
    ended = subprocess.run(
        [str(Path(sys.executable).parent / "zensical"), "build", "--clean", "--strict"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder / "build/site"


def test_links_of_the_built_site_work_and_it_loads_nothing_from_other_servers(site: Path) -> None:
    pages = {str(file.relative_to(site)): Page(file.read_text(encoding="utf-8")) for file in site.rglob("*.html")}
    faults = [
        f"{name}: {fault}" for name, page in pages.items() for fault in _faults(site, name, page, pages)
    ]  # fmt: skip
    styles = {file.name: file.read_text(encoding="utf-8") for file in site.rglob("*.css")}
    faults += [name for name, text in styles.items() if re.search(r"(@import|url\()\s*[\"']?(https?:)?//", text)]

    assert len(pages) > len([name for name in PAGES if name.startswith("docs/")]), (
        "one page is missing: there is one for each file, and one for errors"
    )
    assert not faults
    assert not [*site.rglob("*.py"), *site.rglob("*.yml")]


def _faults(site: Path, name: str, page: Page, pages: dict[str, Page]) -> Iterator[str]:
    # The error page is served at any depth: its addresses begin at the root.
    base = urljoin(HERE, name)
    for address in page.loads:
        parts = urlsplit(urljoin(base, address))
        if parts.scheme != "data" and not urljoin(base, address).startswith(HERE):
            yield f"loads {address}"
    for address in [*page.links, *page.loads]:
        whole = urljoin(base, address)
        if not whole.startswith(HERE):
            continue
        parts = urlsplit(whole)
        file = unquote(parts.path.lstrip("/"))
        file = f"{file}index.html" if not file or file.endswith("/") else file
        if not (site / file).is_file():
            yield f"links to {address}, which does not exist"
        elif parts.fragment and file in pages and unquote(parts.fragment) not in pages[file].anchors:
            yield f"links to {address}, but there is no such heading"
    if page.diagrams:
        yield "has a diagram that only a script could draw"


def test_generated_pages_contain_what_the_code_defines(site: Path) -> None:
    expected = {
        "reference/settings": [f"{PREFIX}{field.upper()}" for field in Settings.model_fields],
        "reference/parameters": ["max_rows", "gradient_boosting", "holdout_share"],
        "reference/catalog": ["raw_customers", "target_list", "{candidate}_cv_predictions", "simulated_truth"],
        "reference/commands": ["kedro table draft", "kedro promote", "make container-test"],
        "reference/pipelines": ["validate_customers", "check_equivalence"],
        "reference/code/modelling": ["churn_pipeline.modelling.candidates.Candidate.copies", "QuantileSplines"],
        "results": ["Model quality compared with other tools", "Measured on"],
        "decisions": ["One fitted object"],
        "how_to/what_to_change_where": ["split.holdout_share", "CHURN_SERVING_RATE_LIMIT", "VIZ_PORT"],
        "tutorial/notebooks": ["Explore the customers"],
        "explanation/architecture": ["hashes the id to"],
    }
    texts = {name: (site / name / "index.html").read_text(encoding="utf-8") for name in expected}

    assert not [f"{name}: {word}" for name, words in expected.items() for word in words if word not in texts[name]]


def _pages(nav: object) -> Iterator[str]:
    for entry in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from [entry] if isinstance(entry, str) else _pages(entry)


def test_the_navigation_contains_every_page() -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]

    assert sorted(_pages(nav)) == [name.removeprefix("docs/") for name in sorted(PAGES) if name.startswith("docs/")]


def _commands(text: str) -> Iterator[str]:
    """The commands on a page: lines of console blocks, and inline code."""
    program = r"(?:\.venv/bin/)?(?:make|kedro|python) "
    blocks = "".join(re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)).replace("\\\n", " ")
    for line in re.findall(rf"^{program}.*$", blocks, flags=re.MULTILINE):
        yield from (command.split(" > ")[0] for command in line.split(" # ")[0].split(" && "))
    yield from re.findall(rf"`({program}[^`…]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


COMMANDS = sorted({(name, command.strip()) for name, text in PAGES.items() for command in _commands(text)})


@pytest.fixture(scope="module")
def kedro() -> KedroCLI:
    return KedroCLI(project_path=ROOT)


@pytest.fixture(scope="module")
def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def _parse(command: click.Command, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse a command's arguments as click does, without running it."""
    context = click.Context(command)
    while isinstance(command, click.Group) and words:
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
        context = click.Context(command, info_name=name, parent=context)
    for parameter in command.params:
        if isinstance(parameter.type, click.Path):  # a file in an example need not exist
            monkeypatch.setattr(parameter.type, "exists", False)
    if not isinstance(command, click.Group) and words != ["--help"]:
        command.make_context(command.name, words)


def test_every_command_on_a_page_exists_with_its_options(
    kedro: KedroCLI, targets: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = []
    for page, command in COMMANDS:
        words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=.*", word)]
        if not words:
            continue
        program, *rest = words
        program = program.removeprefix(".venv/bin/")
        try:
            if program == "make":
                assert set(rest) <= targets, "no such target"
            elif program == "kedro":
                _parse(kedro, rest, monkeypatch)
            elif program == "python" and rest[0] == "-m":
                assert importlib.util.find_spec(rest[1]), "no such module"
        except (click.MissingParameter, click.exceptions.Exit):
            continue  # a page may mention a command without its arguments, or its --help
        except (AssertionError, click.ClickException) as error:
            faults.append(f"{page}: {command}: {error}")

    assert len(COMMANDS) > 50
    assert not faults


def test_every_parameter_and_setting_on_a_page_exists() -> None:
    parameters: dict[str, object] = {}
    for file in (ROOT / "conf/base").glob("parameters*.yml"):
        parameters |= yaml.safe_load(file.read_text(encoding="utf-8"))
    known = {*Settings.model_fields, *(f"{name}_file" for name in secret_fields(Settings))}
    faults = []
    for page, text in PAGES.items():
        for given in re.findall(r"--params[ =]\"?([\w.=,-]+)", text):
            for name in (part.split("=")[0] for part in given.split(",")):
                block: object = parameters
                for part in name.split("."):
                    block = block.get(part, faults) if isinstance(block, dict) else faults
                faults += [f"{page}: --params {name}"] if block is faults else []
        settings = {name.lower() for name in re.findall(rf"{PREFIX}([A-Z_]+[A-Z])", text)}
        faults += [f"{page}: {PREFIX}{name.upper()}" for name in settings - known]

    assert not faults


def test_every_path_on_a_page_exists() -> None:
    paths = {
        (page, path)
        for page, text in PAGES.items()
        for path in re.findall(r"`((?:src|conf|docs|tests|benchmarks|requirements)/[\w./-]+)`", text)
        if not path.startswith("conf/local")
    }

    assert len(paths) > 10
    assert not [f"{page}: {path}" for page, path in paths if not (ROOT / path).exists()]


@pytest.fixture(scope="module")
def generators() -> ModuleType:
    """The functions that generate parts of pages."""
    spec = importlib.util.spec_from_file_location("pages", DOCS / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _configured(row: dict[str, str]) -> Any:
    """A setting's default as the program that reads it sees it: pydantic, make or Kedro's OmegaConf."""
    if row["file"] == "environment":
        assert row["key"].startswith(PREFIX)
        return Settings.model_fields[row["key"].removeprefix(PREFIX).lower()].default
    if row["file"] == "Makefile":
        environment = {name: value for name, value in os.environ.items() if name != row["key"]}
        variables = subprocess.run(
            ["make", "-pn", "help"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        ).stdout
        return re.findall(rf"^{row['key']} = (.*)$", variables, flags=re.MULTILINE)[0]
    settings = OmegaConf.to_container(OmegaConf.load(ROOT / row["file"]), resolve=False)
    return reduce(lambda block, part: block[part], row["key"].split("."), settings)


def test_what_to_change_where_shows_the_defaults_in_the_configuration(generators: ModuleType) -> None:
    rows = [row for rows in generators.settings_by_topic().values() for row in rows]
    page = generators.what_to_change_where()

    assert len(rows) >= 20
    assert len({row["want"] for row in rows}) == len(rows)
    for row in rows:
        default = _configured(row)
        assert generators.default_value(row) == default, row
        cells = f" | `{row['file']}`<br>`{row['key']}` | {generators.shown_default(row)} |"
        assert [line.endswith(cells) for line in page.splitlines() if f"**{row['want']}**" in line] == [True]
        if isinstance(default, str | int | float):
            assert (
                generators.shown_default(row) == f"`{str(default).lower() if isinstance(default, bool) else default}`"
            )


def test_a_renamed_setting_stops_the_build_of_the_page(generators: ModuleType) -> None:
    with pytest.raises(KeyError, match="holdout_part"):
        generators.shown_default({"file": "conf/base/parameters_data_engineering.yml", "key": "split.holdout_part"})


def _block(page: str, language: str, begin: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGES[f"docs/how_to/{page}.md"], flags=re.DOTALL)
    return next(block for block in blocks if begin in block)


def test_the_examples_of_the_how_to_pages_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```yaml\n(candidates:\n.*?)```", PAGES["docs/how_to/own_candidate.md"], flags=re.DOTALL)
    candidates = {name: block for text in blocks for name, block in yaml.safe_load(text)["candidates"].items()}
    evaluated_by = yaml.safe_load(_block("own_metric", "yaml", "evaluation:"))["evaluation"]["metrics"]
    costs = yaml.safe_load(_block("own_cost_model", "yaml", "costs:"))["costs"]
    (tmp_path / "metric_of_the_page.py").write_text(_block("own_metric", "python", "def "), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    own = "metric_of_the_page.share_above_half"

    assert {name: Candidate.model_validate(block).class_path for name, block in candidates.items() if block}
    assert all(resolve_metric(name)([0, 1, 1], [0.2, 0.4, 0.8]) >= 0 for name in evaluated_by)
    assert CostModel.model_validate(costs).acceptance == 0.3
    assert resolve_metric(own)([0, 1, 1], [0.2, 0.4, 0.8]) == 0.5
    assert greater_is_better(own)
