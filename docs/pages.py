"""Functions that generate parts of the site from code, configuration and measurements while Zensical builds it.

A page calls one of these functions in double braces. The result is therefore always up to date.
"""

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import click
import pandas as pd
import yaml

from churn_pipeline.cli import cli
from churn_pipeline.contract.schema import read_contract
from churn_pipeline.contract.validation import validate_table
from churn_pipeline.pipelines.data_engineering.identity import identify_customers
from churn_pipeline.pipelines.data_engineering.splitting import SplitSettings, sides
from churn_pipeline.serving.refusal_codes import refusals_table
from churn_pipeline.serving.settings import PREFIX, Settings, settings_table

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "churn_pipeline"
RESULTS = ROOT / "benchmarks" / "results"
CONF = ROOT / "conf" / "base"
LONG_LINE = 60
# The order in which a reader asks: how good is it, how fast is it, what does it cost?
FIRST_RESULTS = (
    "quality_development",
    "quality",
    "evaluation",
    "serving",
    "serving_parts",
    "serving_rate",
    "serving_soak",
    "serving_failures",
    "abuse",
)


def define_env(env: Any) -> None:
    """Hand the functions to Zensical."""
    generators = (catalog, code, commands, decisions, notebooks, parameters, pipelines, results, root_page, row_through)
    for function in (*generators, error_codes, settings, tables, targets, what_to_change_where):
        env.macro(function)


def results() -> str:
    """Every results table, as its benchmark wrote it."""
    files = {file.stem: file for file in sorted(RESULTS.glob("*.md"))}
    order = [*(name for name in FIRST_RESULTS if name in files), *(name for name in files if name not in FIRST_RESULTS)]
    return "\n\n".join(_demoted(files[name].read_text(encoding="utf-8")) for name in order)


def settings() -> str:
    """The service's settings."""
    return settings_table()


def error_codes() -> str:
    """The codes of the service's errors."""
    return refusals_table()


def what_to_change_where() -> str:
    """Settings by topic: what somebody wants to change, the file and key, the default, and the effect."""
    parts = []
    for topic, rows in settings_by_topic().items():
        lines = [
            f"| **{row['want']}**<br>{_cell(row['effect'])} | `{row['file']}`<br>`{row['key']}` | {shown_default(row)} |"
            for row in rows
        ]
        parts.append("\n".join([f"## {topic}", "", "| to do this | change | default |", "|---|---|---|", *lines]))
    return "\n\n".join(parts)


def settings_by_topic() -> dict[str, list[dict[str, str]]]:
    """The rows of the page above: keys ``want``, ``file``, ``key`` and ``effect``."""
    text = (ROOT / "docs/what_to_change_where.yml").read_text(encoding="utf-8")
    return cast(dict[str, list[dict[str, str]]], yaml.safe_load(text))


def default_value(row: dict[str, str]) -> Any:
    """Read a setting's default: a variable from ``Settings``, a port from the Makefile, all else from its file in conf.

    Raises
    ------
    KeyError
        If the file has no such key.
    """
    if row["file"] == "environment":
        return Settings.model_fields[row["key"].removeprefix(PREFIX).lower()].default
    text = (ROOT / row["file"]).read_text(encoding="utf-8")
    if row["file"] == "Makefile":
        return dict(re.findall(r"^(\w+) \?= (.*)$", text, flags=re.MULTILINE))[row["key"]]
    value = yaml.safe_load(text)
    for part in row["key"].split("."):
        value = value[part]
    return value


def shown_default(row: dict[str, str]) -> str:
    """A setting's default as Markdown. For long blocks, such as the candidates, only the keys are shown."""
    value = default_value(row)
    if value in (None, (), []):
        return "none"
    if isinstance(value, dict):
        lines = [f"`{name}: {inner}`".replace("'", "") for name, inner in value.items()]
        return "<br>".join(lines) if max(map(len, lines)) < LONG_LINE else ", ".join(f"`{name}`" for name in value)
    if isinstance(value, list):
        return ", ".join(f"`{inner}`" for inner in value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def targets() -> str:
    """The targets of the Makefile."""
    found = re.findall(r"^([a-z-]+):.*?## (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return "\n".join(
        ["| target | does |", "|---|---|", *(f"| `make {name}` | {_cell(text)} |" for name, text in found)]
    )


def commands() -> str:
    """The help text of each command that this project adds to Kedro, and of its ``kedro run``."""
    return "\n\n".join(
        f"## `{path}` {{#{path.replace(' ', '-')}}}\n\n```text\n{_help(command, path)}\n```"
        for path, command in _leaves(cli, "kedro")
    )


def _leaves(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _leaves(inner, f"{path} {name}")
    else:
        yield path, command


def _help(command: click.Command, path: str) -> str:
    context = click.Context(command, info_name=path, terminal_width=84, max_content_width=84)
    return textwrap.dedent(command.get_help(context)).strip()


def parameters() -> str:
    """The parameter files with their comments. The long file of the simulation is folded."""
    parts = []
    for file in sorted(CONF.glob("parameters*.yml")):
        block = f"```yaml\n{file.read_text(encoding='utf-8').strip()}\n```"
        if file.stem == "parameters_simulation":
            block = f'??? note "The file"\n\n{textwrap.indent(block, "    ")}'
        parts.append(f"## {file.name}\n\n{block}")
    return "\n\n".join(parts)


def catalog() -> str:
    """The datasets of the catalog, with the comments above them."""
    parts = []
    for file in sorted(CONF.glob("catalog*.yml")):
        text = file.read_text(encoding="utf-8")
        rows = [
            f"| `{name}` | {_dataset(entry)} | {_cell(_comment(text, name))} |"
            for name, entry in yaml.safe_load(text).items()
        ]
        parts.append(
            "\n".join([f"## {file.name}", "", "| dataset | kind and place | remarks |", "|---|---|---|", *rows])
        )
    return "\n\n".join(parts)


def _dataset(entry: dict[str, Any]) -> str:
    inner = entry.get("dataset")
    inner = inner if isinstance(inner, dict) else {}
    kinds = [str(part["type"]).rpartition(".")[2] for part in (entry, inner) if "type" in part]
    place = entry.get("filepath") or inner.get("filepath") or entry.get("name") or entry.get("prefix")
    return " of ".join(kinds) + (f"<br>`{place}`" if place else "")


def _comment(text: str, name: str) -> str:
    """The comment directly above a top-level key."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("#"):
            lines.append(line.lstrip("# "))
        elif line.startswith((f"{name}:", f'"{name}":')):
            return " ".join(lines)
        else:
            lines.clear()
    return ""


def pipelines() -> str:
    """The README and the nodes of each pipeline."""
    parts = []
    for folder in sorted(file.parent for file in (SOURCE / "pipelines").glob("*/README.md")):
        nodes = f"::: churn_pipeline.pipelines.{folder.name}.nodes\n    options:\n      heading_level: 3"
        parts.append(f"{_demoted((folder / 'README.md').read_text(encoding='utf-8'))}\n\n{nodes}")
    return "\n\n".join(parts)


def code(package: str) -> str:
    """Every module of a package, from its docstrings."""
    files = sorted(file for file in (SOURCE / package).rglob("*.py") if not file.stem.startswith("__"))
    modules = (".".join(file.relative_to(SOURCE).with_suffix("").parts) for file in files)
    return "\n\n".join(f"::: churn_pipeline.{module}" for module in modules)


def tables() -> str:
    """The tables that come with the project."""
    rows = ["| table | holds | label |", "|---|---|---|"]
    for file in sorted((CONF / "tables").glob("*.yml")):
        contract = read_contract(file)
        meaning, description = _cell(contract.label.meaning), _cell(contract.description)
        rows.append(f"| [{file.stem}](../tables/{file.stem}.md) | {description} | {meaning} |")
    return "\n".join(rows)


def decisions() -> str:
    """All decision records by title."""
    rows = ["| | decision |", "|---|---|"]
    for file in sorted((ROOT / "docs/decisions").glob("0*.md")):
        number, _, title = file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ").partition(". ")
        rows.append(f"| {number} | [{title}]({file.name}) |")
    return "\n".join(rows)


def notebooks() -> str:
    """The first cell of each notebook, which introduces it."""
    parts = []
    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        first = "".join(json.loads(file.read_text(encoding="utf-8"))["cells"][0]["source"])
        parts.append(_demoted(first))
    return "\n\n".join(parts)


def root_page(name: str) -> str:
    """A page from the root folder. Links to pages of the site are adapted, links to other files become plain text."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"\[([^\]]+)\]\(LICENSE\)", r"\1", text.replace("](docs/", "]("))
    return re.sub(r"\]\((CHANGELOG|CONTRIBUTING|SECURITY)\.md\)", lambda match: f"]({match[1].lower()}.md)", text)


def row_through() -> str:
    """The first held-out customer of the simulated table, from its line in the CSV to the split."""
    contract = read_contract(CONF / "tables/simulated.yml")
    raw = pd.read_csv(ROOT / "data/01_raw/simulated_customers.csv", dtype=str, keep_default_na=False)
    customers = validate_table(raw, contract).customers
    split = SplitSettings.model_validate(
        yaml.safe_load((CONF / "parameters_data_engineering.yml").read_text(encoding="utf-8"))["split"]
    )
    identity = identify_customers(customers, contract)
    side = sides(customers, identity, contract, split)
    position = int((side == "hold-out").to_numpy().argmax())
    fraction = identity.fractions[position]
    numbers = ", ".join(f"{name} {float(customers[name].iloc[position]):g}" for name in contract.numeric)
    protected = " and ".join(f"`{name}`" for name in contract.roles.protected)
    return f"""\
1. **The file.** Line {position + 2} of `data/01_raw/simulated_customers.csv`:
    ```text
    {",".join(raw.iloc[position])}
    ```
2. **The contract** gives each column its type. Of {len(contract.columns)} columns, {len(contract.features)} are features:
   {len(contract.numeric)} numeric ones ({numbers}) and {len(contract.categorical)} categorical ones. {protected} are
   protected: the model does not use them, but the evaluation compares their groups. An invalid row would be quarantined
   with its reason.
3. **The split** hashes the id to {fraction:.4f}. That is below `split.holdout_share` ({split.holdout_share:g}), so the customer
   is held out, in this run and in every later one."""


def _demoted(text: str) -> str:
    """A Markdown file as part of another: headings one level lower, links to other files as plain text."""
    text = re.sub(r"^(#+ )", r"#\1", text.strip(), flags=re.MULTILINE)
    return re.sub(r"\[([^\]]+)\]\((?!https?:|#)[^)]*\)", r"\1", text)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")
