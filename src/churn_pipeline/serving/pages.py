"""The HTML pages: a form that scores one customer, and the documentation of all paths.

Both are rendered once, at start, from the contract and the OpenAPI document; the templates escape every value. The pages load
nothing from other hosts and need no exception in the content security policy: scripts and styles are files under ``static/``,
and the scripts read their data from a block of JSON.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from churn_pipeline.serving.bundle import Bundle
from churn_pipeline.serving.column_rules import ColumnRule, column_rules

STATIC = Path(__file__).parent / "static"
TEMPLATES = Path(__file__).parent / "templates"
# A page may load files of this service and call it. No other site may frame it.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
BASE_URL = "http://localhost:3000"  # BentoML's default; a script replaces it with the page's own address
MAX_REASONS = 8


@dataclass(frozen=True)
class Field:
    """A column as a field of the form.

    Attributes
    ----------
    index
        Position in the form. Element ids use it, because a column name may be any text.
    name
        The column's name.
    rule
        The column's rule.
    value
        Value in the example; None for empty.
    """

    index: int
    name: str
    rule: ColumnRule
    value: Any

    @property
    def label(self) -> str:
        """Title of the column, or else its name."""
        return self.rule.column.title or self.name

    @property
    def meaning(self) -> str:
        """Description of the column, and its default for missing values."""
        default = self.rule.column.default
        missing = f"Defaults to {default} if missing." if default is not None and self.rule.is_valid(default) else ""
        return " ".join(part for part in (self.rule.column.description, missing) if part)

    @property
    def hint(self) -> str:
        """Help text of the field. A choice needs no rule, because it shows its levels."""
        words = self.rule.words
        rule = "" if self.rule.input_kind == "choice" else f"{words[0].upper()}{words[1:]}."
        return " ".join(part for part in (self.meaning, rule) if part)


@dataclass(frozen=True)
class Metric:
    """A hold-out metric, formatted."""

    label: str
    value: str
    interval: str


@dataclass(frozen=True)
class Operation:
    """One operation of the OpenAPI document."""

    path: str
    method: str
    summary: str
    description: str
    access: Literal["key", "either", "open"]
    body: str | None
    answers: tuple[tuple[str, str], ...]

    @property
    def anchor(self) -> str:
        """Id of the operation's section in the page."""
        return f"{self.method}{re.sub(r'[^a-z]+', '-', self.path)}".lower().rstrip("-")

    @property
    def can_be_tried(self) -> bool:
        """Whether the page can send it and show the answer."""
        return self.method == "GET" or self.body is not None

    @property
    def curl(self) -> str:
        """A curl command for a shell."""
        parts = [f"curl {BASE_URL}{self.path}"]
        if self.access == "key":
            parts.append('-H "Authorization: Bearer $CHURN_KEY"')
        if self.body is not None:
            parts.append('-H "Content-Type: application/json"')
            parts.append(f"-d {shlex.quote(self.body)}")
        return " \\\n  ".join(parts)


def landing_page(bundle: Bundle, document: Mapping[str, Any]) -> str:
    """The page at ``/``: a form for one customer, the prediction with reasons, and facts about the model.

    Parameters
    ----------
    bundle
        The served bundle.
    document
        The OpenAPI document; its example fills the form.

    Returns
    -------
    str
        A complete HTML document.
    """
    contract, manifest = bundle.contract, bundle.manifest
    customer = _example(document)["customers"][0]
    fields = list(_fields(bundle, customer))
    metrics = list(_metrics(manifest.metrics))
    return _render(
        "landing.html",
        bundle,
        page="landing",
        scripts=["service.js", "landing.js"],
        identity=fields[0] if contract.roles.id else None,
        features=fields[1:] if contract.roles.id else fields,
        metrics=metrics,
        intervals=any(metric.interval for metric in metrics),
        form={
            "reasons": min(MAX_REASONS, len(contract.features)),
            "fields": [
                {
                    "name": field.name,
                    "label": field.label,
                    "kind": field.rule.input_kind,
                    "rule": field.rule.words,
                    "choices": [choice for choice, _ in field.rule.choices],
                }
                for field in fields
            ],
        },
    )


def docs_page(bundle: Bundle, document: Mapping[str, Any]) -> str:
    """The page at ``/docs``: every path with an example, its answers, and a form to try it.

    Parameters
    ----------
    bundle
        The served bundle.
    document
        The OpenAPI document.

    Returns
    -------
    str
        A complete HTML document.
    """
    return _render(
        "docs.html",
        bundle,
        page="docs",
        scripts=["service.js", "docs.js"],
        document=document,
        operations=list(_operations(document)),
        fields=list(_fields(bundle, {})),
    )


def _render(template: str, bundle: Bundle, **facts: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = _prose
    shown = {
        "manifest": bundle.manifest,
        "contract": bundle.contract,
        "value_column": bundle.decision.column,
        "static": _static,
    }
    return environment.get_template(template).render(**shown, **facts)


def _static(name: str) -> str:
    """Address of a static file; it changes with the content, so that browsers do not mix versions."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()
    return f"static/{name}?v={digest[:12]}"


def _prose(text: str | None) -> Markup:
    """Render a description as paragraphs, with text in backticks as code."""
    paragraphs = [part for part in re.split(r"\n\s*\n", text or "") if part.strip()]
    marked = (re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(part))) for part in paragraphs)
    return Markup("\n").join(Markup(f"<p>{part}</p>") for part in marked)  # noqa: S704 - escaped above


def _fields(bundle: Bundle, customer: Mapping[str, Any]) -> Iterator[Field]:
    """Fields for the columns that a request should have; the id first, if there is one."""
    rules = column_rules(bundle.contract)
    for index, name in enumerate(bundle.request_columns):
        yield Field(index, name, rules[name], customer.get(name))


def _metrics(metrics: Mapping[str, float]) -> Iterator[Metric]:
    """Metrics with their intervals, without the best possible values, which are not metrics of this model."""
    parts = re.compile("_(lower|upper|best_possible)$")
    for name, value in metrics.items():
        if parts.search(name) and parts.sub("", name) in metrics:
            continue
        low, high = metrics.get(f"{name}_lower"), metrics.get(f"{name}_upper")
        interval = f"{low:.4g} to {high:.4g}" if low is not None and high is not None else ""
        yield Metric(name.replace("_", " "), f"{value:.4g}", interval)


def _operations(document: Mapping[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            answers = {status: _resolved(document, answer) for status, answer in operation["responses"].items()}
            yield Operation(
                path=path,
                method=method.upper(),
                summary=operation.get("summary", ""),
                description=operation.get("description", ""),
                access=_access(operation["security"]),
                body=None if content is None else json.dumps(content["example"], indent=2, ensure_ascii=False),
                answers=tuple((status, answer["description"]) for status, answer in answers.items()),
            )


def _access(security: Sequence[Mapping[str, Any]]) -> Literal["key", "either", "open"]:
    """Whether a key is needed; `either` if the service's settings decide."""
    if not security:
        return "open"
    return "either" if {} in security else "key"


def _example(document: Mapping[str, Any]) -> Any:
    """The example request of the document."""
    return document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]


def _resolved(document: Mapping[str, Any], part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow the references of a part of the document."""
    while "$ref" in part:
        target: Any = document
        for step in part["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        part = target
    return part
