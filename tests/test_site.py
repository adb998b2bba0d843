"""The documentation site: it builds strictly, its parts hold together, and what its pages tell people to type exists."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import click
import pytest
import yaml
from kedro.framework.cli.cli import KedroCLI

from churn_pipeline.evaluation.metrics import greater_is_better, resolve_metric
from churn_pipeline.evaluation.profit import CostModel
from churn_pipeline.modelling.candidates import Candidate
from churn_pipeline.serving.settings import PREFIX, Settings
from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = {
    str(file.relative_to(ROOT)): file.read_text(encoding="utf-8")
    for file in (*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md")
}
# What a page may load, by element and attribute; an `a` is only followed when somebody wants to.
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
# Chosen at run time by the catalog, and in no file of parameters.
RUNTIME = {"simulation_name"}
HERE = "http://site/"


class Page(HTMLParser):
    """Where a built page links to, what it loads, and the anchors that it has."""

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
        self.diagrams += "mermaid" in given.get("class", "")  # a script from elsewhere would draw it
        self.links += [given["href"]] if tag == "a" and "href" in given else []
        canonical = given.get("rel") in ("canonical", "next", "prev")
        self.loads += [value for name, value in given.items() if (tag, name) in LOADED and not canonical]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does, in a folder of its own."""
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


def test_the_built_site_holds_together_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = {str(file.relative_to(site)): Page(file.read_text(encoding="utf-8")) for file in site.rglob("*.html")}
    faults = [
        f"{name}: {fault}" for name, page in pages.items() for fault in _faults(site, name, page, pages)
    ]  # fmt: skip
    styles = {file.name: file.read_text(encoding="utf-8") for file in site.rglob("*.css")}
    faults += [name for name, text in styles.items() if re.search(r"(@import|url\()\s*[\"']?(https?:)?//", text)]

    assert len(pages) > len([name for name in PAGES if name.startswith("docs/")]), (
        "each page, and one for what is not there"
    )
    assert not faults
    assert not list(site.rglob("*.py"))


def _faults(site: Path, name: str, page: Page, pages: dict[str, Page]) -> Iterator[str]:
    # The page for what is not there may stand at any depth: its addresses begin at the root.
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
            yield f"links to {address}, which is not there"
        elif parts.fragment and file in pages and unquote(parts.fragment) not in pages[file].anchors:
            yield f"links to {address}, which has no such heading"
    if page.diagrams:
        yield "has a diagram that only a script from elsewhere could draw"


def test_pages_made_from_code_hold_what_the_code_has(site: Path) -> None:
    expected = {
        "reference/settings": [f"{PREFIX}{field.upper()}" for field in Settings.model_fields],
        "reference/parameters": ["blend_standard_errors", "gradient_boosting", "holdout_share"],
        "reference/catalog": ["raw_customers", "target_list", "{candidate}_model", "simulated_truth"],
        "reference/commands": ["kedro table draft", "kedro promote", "make container-test"],
        "reference/pipelines": ["validate_customers", "convert_version"],
        "reference/code/modelling": ["churn_pipeline.modelling.candidates.Candidate.copies", "QuantileSplines"],
        "results": ["Quality beside others", "Made by"],
        "decisions": ["One fitted object"],
        "tutorial/notebooks": ["Explore the customers"],
        "explanation/architecture": ["hashes the id to"],
    }
    texts = {name: (site / name / "index.html").read_text(encoding="utf-8") for name in expected}

    assert not [f"{name}: {word}" for name, words in expected.items() for word in words if word not in texts[name]]


def _pages(nav: object) -> Iterator[str]:
    for entry in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from [entry] if isinstance(entry, str) else _pages(entry)


def test_the_navigation_names_every_page() -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]

    assert sorted(_pages(nav)) == [name.removeprefix("docs/") for name in sorted(PAGES) if name.startswith("docs/")]


def _commands(text: str) -> Iterator[str]:
    """What a page tells people to type: lines of console blocks, and words in backticks."""
    program = r"(?:\.venv/bin/)?(?:make|kedro|python) "
    blocks = "".join(re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)).replace("\\\n", " ")
    for line in re.findall(rf"^{program}.*$", blocks, flags=re.MULTILINE):
        yield from line.split(" # ")[0].split(" && ")
    yield from re.findall(rf"`({program}[^`…]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


COMMANDS = sorted({(name, command.strip()) for name, text in PAGES.items() for command in _commands(text)})


@pytest.fixture(scope="module")
def kedro() -> KedroCLI:
    return KedroCLI(project_path=ROOT)


@pytest.fixture(scope="module")
def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def _parse(command: click.Command, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a command's words as click does, and do not call it."""
    context = click.Context(command)
    while isinstance(command, click.Group) and words:
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
        context = click.Context(command, info_name=name, parent=context)
    for parameter in command.params:
        if isinstance(parameter.type, click.Path):  # a file in an example need not be there
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
                assert find_spec(rest[1]), "no such module"
        except (click.MissingParameter, click.exceptions.Exit):
            continue  # a page may speak of a command without its arguments, or of its --help
        except (AssertionError, click.ClickException) as error:
            faults.append(f"{page}: {command}: {error}")

    assert len(COMMANDS) > 50
    assert not faults


def test_every_parameter_and_setting_on_a_page_exists() -> None:
    parameters: dict[str, object] = {}
    for file in (ROOT / "conf/base").glob("parameters*.yml"):
        parameters |= yaml.safe_load(file.read_text(encoding="utf-8"))
    faults = []
    for page, text in PAGES.items():
        for given in re.findall(r"--params[ =]\"?([\w.=,-]+)", text):
            for name in (part.split("=")[0] for part in given.split(",")):
                block: object = parameters
                for part in name.split("."):
                    block = block.get(part, faults) if isinstance(block, dict) else faults
                faults += [f"{page}: --params {name}"] if block is faults and name not in RUNTIME else []
        settings = {name.lower() for name in re.findall(rf"{PREFIX}([A-Z_]+[A-Z])", text)}
        faults += [f"{page}: {PREFIX}{name.upper()}" for name in settings - Settings.model_fields.keys()]

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


def _block(page: str, language: str, begin: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGES[f"docs/how_to/{page}.md"], flags=re.DOTALL)
    return next(block for block in blocks if begin in block)


def test_the_examples_of_the_how_to_pages_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = yaml.safe_load(_block("own_candidate", "yaml", "candidates:"))["candidates"]
    evaluated_by = yaml.safe_load(_block("own_metric", "yaml", "evaluation:"))["evaluation"]["metrics"]
    costs = yaml.safe_load(_block("own_cost_model", "yaml", "costs:"))["costs"]
    (tmp_path / "metric_of_the_page.py").write_text(_block("own_metric", "python", "def "), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    own = "metric_of_the_page.share_above_half"

    assert {name: Candidate.model_validate(block).class_path for name, block in candidates.items()}
    assert all(resolve_metric(name)([0, 1, 1], [0.2, 0.4, 0.8]) >= 0 for name in evaluated_by)
    assert CostModel.model_validate(costs).acceptance == 0.3
    assert resolve_metric(own)([0, 1, 1], [0.2, 0.4, 0.8]) == 0.5
    assert greater_is_better(own)
