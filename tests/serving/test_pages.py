"""The pages: every feature has a field, no text becomes code, and a browser shows what the service answers."""

import dataclasses
import json
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from tests.customers import make_contract, table_file
from tests.serving.conftest import THRESHOLD, customers_of, decision_of, make_bundle
from tests.serving.running import Running, serving

from churn_pipeline.contract.table import Contract
from churn_pipeline.serving.app import Application
from churn_pipeline.serving.bundle import FOLDER, Bundle
from churn_pipeline.serving.keys import make_key
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.openapi import document
from churn_pipeline.serving.pages import HEADERS, STATIC, docs_page, landing_page
from churn_pipeline.serving.requests import RequestParser
from churn_pipeline.serving.settings import Settings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
KEY, LINE = make_key("crm")
METRICS = {
    "auc": 0.75,
    "auc_best_possible": 0.9,
    "auc_lower": 0.7,
    "auc_upper": 0.8,
    "expected_profit": -1.5,
    "lower": 3.0,
}
# Column names that a table may have, and that a page must show as text only.
ODD = {
    "region": "</script><script>document.title='taken'</script>",
    "months": "Größe in \"Monaten\" & 'mehr'",
    "charge": "a.b[0].__proto__",
    "plan": "__proto__",
}


class Page(HTMLParser):
    """Parsed page: its elements in order, with attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.append(len(self.elements))
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self.elements[self._open.pop()][0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open:
            self.elements[self._open[-1]][2].append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        """Attributes and text of the elements with a tag."""
        return [(attributes, "".join(text)) for name, attributes, text in self.elements if name == tag]

    @property
    def by_id(self) -> dict[str, tuple[str, dict[str, str | None], list[str]]]:
        """The elements that have an id."""
        ids = [element[1]["id"] for element in self.elements if "id" in element[1]]
        assert len(ids) == len(set(ids))
        return {str(element[1]["id"]): element for element in self.elements if "id" in element[1]}

    @property
    def form(self) -> dict[str, Any]:
        """The data for the script."""
        (content,) = (text for attributes, text in self.all("script") if attributes.get("id") == "form")
        found: dict[str, Any] = json.loads(content)
        return found

    def customer(self) -> dict[str, Any]:
        """The customer in the form, as the script reads it."""
        customer: dict[str, Any] = {}
        options: dict[str, list[tuple[dict[str, str | None], str]]] = {}
        select = ""
        for tag, attributes, _ in self.elements:
            select = str(attributes["id"]) if tag == "select" else select
            if tag == "option":
                options.setdefault(select, []).append((attributes, ""))
        for index, field in enumerate(self.form["fields"]):
            _, attributes, _ = self.by_id[f"field-{index}"]
            value = attributes.get("value")
            if field["kind"] == "choice":
                chosen = [one for one, _ in options[f"field-{index}"] if "selected" in one]
                value = chosen[0]["value"] if chosen else options[f"field-{index}"][0][0]["value"]
            if value:
                read = {"choice": lambda value, field=field: field["choices"][int(value)], "number": float, "text": str}
                customer[field["name"]] = read[field["kind"]](value)
        return customer


def renamed(names: dict[str, str]) -> Contract:
    """The contract of `tests.customers` with some columns renamed."""
    content = table_file()
    content["columns"]["plan"]["example"] = "AB"  # the training profile of the bundle has the old names
    columns = {names.get(name, name): column for name, column in content["columns"].items()}
    return Contract.parse({**content, "columns": columns}, "customers")


def only(kind: str) -> Contract:
    """A contract with features of one kind, and no id."""
    contract = make_contract()
    content = table_file()
    kept = {*getattr(contract, kind), "churn"}
    columns = {name: column for name, column in content["columns"].items() if name in kept}
    return Contract.parse({**content, "columns": columns, "roles": {"target": content["roles"]["target"]}}, "customers")


def wide() -> Contract:
    """A contract of 60 features."""
    content = table_file()
    more = {f"number {place}": {"dtype": "float64", "nullable": place % 2 == 0} for place in range(60 - 8)}
    return Contract.parse({**content, "columns": {**content["columns"], **more}}, "customers")


CONTRACTS = {
    "ordinary": make_contract(),
    "dated": make_contract(dated=True),
    "odd": renamed(ODD),
    "only numbers": only("numeric"),
    "only levels": only("categorical"),
    "wide": wide(),
}


def with_contract(bundle: Bundle, contract: Contract) -> Bundle:
    return dataclasses.replace(bundle, contract=contract, decision=decision_of(contract))


def document_of(bundle: Bundle, contract: Contract) -> dict[str, Any]:
    schema = RequestParser(contract, contract.numeric, contract.categorical, max_rows=100).schema
    return document(with_contract(bundle, contract), schema, schema)


def pages_of(bundle: Bundle, contract: Contract) -> tuple[Page, Page]:
    """The landing page and the documentation of a contract."""
    bundle, openapi = with_contract(bundle, contract), document_of(bundle, contract)
    return Page(landing_page(bundle, openapi)), Page(docs_page(bundle, openapi))


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS.keys())
def test_every_feature_and_the_id_have_a_field_with_a_label_a_hint_and_a_place_for_errors(
    bundle: Bundle, contract: Contract
) -> None:
    page, _ = pages_of(bundle, contract)
    names_in_form = [*([contract.roles.id] if contract.roles.id else []), *contract.features]
    assert [field["name"] for field in page.form["fields"]] == names_in_form
    labels = {attributes["for"]: text.strip() for attributes, text in page.all("label")}
    for index, name in enumerate(names_in_form):
        tag, attributes, _ = page.by_id[f"field-{index}"]
        assert tag in ("input", "select")
        assert labels[f"field-{index}"] == name
        described = (attributes["aria-describedby"] or "").split()
        assert described == [f"field-{index}-hint", f"field-{index}-error"]
        assert set(described) <= set(page.by_id)


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS.keys())
def test_the_initial_form_is_a_valid_customer(bundle: Bundle, contract: Contract) -> None:
    page, _ = pages_of(bundle, contract)
    example = document_of(bundle, contract)["paths"]["/predict"]["post"]["requestBody"]["content"]
    customer = page.customer()
    assert customer == example["application/json"]["example"]["customers"][0]
    requests = RequestParser(contract, contract.numeric, contract.categorical, max_rows=1)
    assert requests.read(json.dumps({"customers": [customer]}).encode())


def test_a_field_has_the_kind_and_the_rules_of_its_column(bundle: Bundle) -> None:
    page, _ = pages_of(bundle, make_contract())
    places = {field["name"]: index for index, field in enumerate(page.form["fields"])}

    def field(name: str) -> tuple[str, dict[str, str | None]]:
        tag, attributes, _ = page.by_id[f"field-{places[name]}"]
        shown = ("type", "min", "max", "step")
        return tag, {name: value for name, value in attributes.items() if name in shown}

    def hint(name: str) -> str:
        return "".join(page.by_id[f"field-{places[name]}-hint"][2])

    assert field("months") == ("input", {"type": "number", "min": "0", "max": "600", "step": "1"})
    assert field("charge") == ("input", {"type": "number", "min": "0", "max": "1000", "step": "any"})
    assert field("plan") == ("input", {"type": "text"})
    assert [field(name)[0] for name in ("region", "lines", "paperless")] == ["select"] * 3
    assert page.form["fields"][places["lines"]]["choices"] == [1, 2, 3]
    assert page.form["fields"][places["paperless"]]["choices"] == [True, False]
    assert hint("months") == "A whole number, at least 0, below 600."
    assert hint("total") == "Defaults to 0 if missing. A number, at least 0."
    text = "".join(part for _, _, texts in page.elements for part in texts)
    assert text.count("optional") == len({"customer", "region", "total", "calls"})
    empty = [attributes for attributes, text in page.all("option") if attributes["value"] == ""]
    assert len(empty) == 1  # only the region may be unknown


@settings(max_examples=30, deadline=None)
@given(names=st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=3, max_size=3, unique=True))
def test_any_column_name_is_shown_and_sent_unchanged(bundle: Bundle, names: list[str]) -> None:
    taken = set(make_contract().columns)
    given_names = dict(zip(("region", "months", "plan"), names, strict=True))
    if taken & set(names):
        return
    page, docs = pages_of(bundle, renamed(given_names))
    names_in_form = {field["name"] for field in page.form["fields"]}
    assert set(names) <= names_in_form
    labels = {text.strip() for attributes, text in page.all("label")}
    assert {name.strip() for name in names} <= labels
    for one in (page, docs):
        assert_it_runs_its_own_files_alone(one)


def assert_it_runs_its_own_files_alone(page: Page) -> None:
    """Check that all code, styles and addresses of a page are the service's own static files."""
    for tag, attributes, text in page.elements:
        assert tag not in ("style", "iframe", "object", "base")
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        if tag == "script" and attributes.get("type") != "application/json":
            assert "".join(text) == ""
            assert (attributes["src"] or "").startswith("static/")
        for name in ("src", "href", "action"):
            assert not re.match(r"[a-z]+:|//", attributes.get(name) or "")


def test_texts_of_a_contract_become_no_markup(bundle: Bundle) -> None:
    content = table_file(description="<img src=x onerror=alert(1)> `<b>`")
    content["label"]["meaning"] = "<i>gone</i>"
    content["columns"]["months"] |= {"title": "<u>Months</u>", "description": "</p><script>x</script>"}
    content["columns"]["region"]["isin"] = ["<s>", '"north"', "south & west"]
    for page in pages_of(bundle, Contract.parse(content, "customers")):
        assert_it_runs_its_own_files_alone(page)
        assert not {"img", "b", "i", "u", "s"} & {tag for tag, _, _ in page.elements}
        shown = "".join(part for _, _, texts in page.elements for part in texts)
        assert "<img src=x onerror=alert(1)>" in shown
        assert "</p><script>x</script>" in shown


def test_the_label_is_the_title_and_the_name_is_sent(bundle: Bundle) -> None:
    content = table_file()
    content["columns"]["months"]["title"] = "Months with us"
    page, _ = pages_of(bundle, Contract.parse(content, "customers"))
    field = next(field for field in page.form["fields"] if field["name"] == "months")
    assert field["label"] == "Months with us"
    assert "Months with us" in [text.strip() for _, text in page.all("label")]


def test_the_landing_page_describes_the_model(bundle: Bundle) -> None:
    manifest = bundle.manifest.model_copy(update={"metrics": METRICS})
    openapi = document_of(bundle, bundle.contract)
    page = Page(landing_page(dataclasses.replace(bundle, manifest=manifest), openapi))
    shown = " ".join(text for _, _, texts in page.elements for text in texts)
    for fact in (manifest.model_name, "version 1", "The customer left.", f"{100 * THRESHOLD:.1f}"):
        assert fact in shown
    metrics = [text for attributes, text in page.all("th") if attributes["scope"] == "row"]
    assert metrics == ["auc", "expected profit", "lower"]
    assert [text for _, text in page.all("td")] == ["0.75", "0.7 to 0.8", "-1.5", "", "3", ""]
    assert "docs" in [attributes["href"] for attributes, _ in page.all("a")]


def test_the_documentation_has_every_operation_with_a_valid_curl_command(bundle: Bundle) -> None:
    content = table_file()
    content["columns"]["region"]["isin"] = ["it's $HOME `here`"]
    contract = Contract.parse(content, "customers")
    _, docs = pages_of(bundle, contract)
    openapi = document_of(bundle, contract)
    curls = [
        shlex.split(text) for attributes, text in docs.all("code") if "curl" in (attributes.get("class") or "").split()
    ]
    operations = [(path, one) for path, methods in openapi["paths"].items() for one in methods.values()]
    assert [curl[1] for curl in curls] == [f"http://localhost:3000{path}" for path, _ in operations]
    for curl, (_, operation) in zip(curls, operations, strict=True):
        assert ("Authorization: Bearer $CHURN_KEY" in curl) == (operation["security"] == [{"key": []}])
        if body := operation.get("requestBody"):
            assert json.loads(curl[curl.index("-d") + 1]) == body["content"]["application/json"]["example"]
    statuses = [text for _, text in docs.all("dt")]
    assert statuses == [status for _, operation in operations for status in operation["responses"]]
    assert "openapi.json" in [attributes["href"] for attributes, _ in docs.all("a")]


@pytest.fixture(scope="module")
def client(bundle: Bundle) -> TestClient:
    allowed = Settings.from_environment({"CHURN_SERVING_AUTHENTICATION": "off"})
    return TestClient(Application(bundle, allowed, Metrics()).starlette())


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_come_with_their_security_headers_and_files(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    page = Page(answer.text)
    files = [str(attributes["src"]) for attributes, _ in page.all("script") if "src" in attributes]
    files += [str(attributes["href"]) for attributes, _ in page.all("link")]
    assert files
    for file in files:
        assert client.get(f"/{file}").status_code == 200


def test_static_files_name_no_other_host() -> None:
    for file in STATIC.iterdir():
        hosts = set(re.findall(r"//([a-z0-9.-]+\.[a-z]+|localhost)", file.read_text(encoding="utf-8")))
        assert hosts <= {"localhost", "www.w3.org"}  # the curl commands, and the SVG namespace


# ---- in a browser --------------------------------------------------------------------------------------------------------

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def odd_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a table whose column names look like code."""
    contract = renamed(ODD)
    customers: pd.DataFrame = customers_of(make_contract()).rename(columns=ODD)
    return make_bundle(tmp_path_factory.mktemp("odd") / FOLDER, contract, customers)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, odd_bundle: Path) -> Iterator[Running]:
    environment = {"CHURN_SERVING_BUNDLE": str(odd_bundle), "CHURN_SERVING_KEYS": LINE}
    service = "churn_pipeline.serving.service:ChurnService"
    with serving(tmp_path_factory.mktemp("pages"), environment, service=service) as one:
        yield one


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def tab(browser: Any, running: Running) -> Iterator[Any]:
    """A tab of phone width; script errors and requests to other hosts fail the test."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, reduced_motion="reduce")
    page = context.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("console", lambda entry: failures.append(entry.text) if "Content Security Policy" in entry.text else None)
    page.on("request", lambda sent: None if sent.url.startswith(running.url) else failures.append(sent.url))
    yield page
    context.close()
    assert failures == []


def field_of(tab: Any, name: str) -> Any:
    """The field with a label."""
    return tab.get_by_label(re.compile(f"^{re.escape(name)}( optional)?$"))


def answering(status: int) -> Any:
    """A handler that replaces the service and answers with an error."""
    return lambda route: route.fulfill(status=status, headers={"Retry-After": "7"}, body="{}")


def explain(running: Running, customer: dict[str, Any]) -> dict[str, Any]:
    """The service's answer to a direct request."""
    answer = httpx.post(
        f"{running.url}/explain",
        json={"customers": [customer], "top": 8},
        headers={"Authorization": f"Bearer {KEY}"},
    )
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


@needs_chromium
def test_the_page_shows_what_the_service_answers(tab: Any, running: Running) -> None:
    customer = {
        "customer": "<b>C-1</b>",
        ODD["region"]: "east side",
        ODD["months"]: 7,
        ODD["charge"]: 12.5,
        "calls": 3,
        ODD["plan"]: "AB",
        "lines": 2,
        "paperless": True,
    }
    answer = explain(running, customer)
    tab.goto(running.url)
    tab.get_by_label("API key").fill(KEY)
    for name, value in customer.items():
        field = field_of(tab, name)
        if name in (ODD["region"], "lines", "paperless"):
            field.select_option(label={True: "yes"}.get(value, str(value)) if name == "paperless" else str(value))
        else:
            field.fill(str(value))
    field_of(tab, "total").fill("")  # a missing value
    tab.get_by_role("button", name="Score this customer").click()
    tab.locator("#reasons").wait_for()
    (prediction,) = answer["predictions"]
    probability = prediction["churn_probability"]
    assert float(tab.locator("#probability").get_attribute("data-value")) == probability
    assert tab.locator("#probability").inner_text() == f"{100 * probability:.1f} %"
    words = {"contact": "Contact this customer", "no_contact": "Do not contact this customer"}
    assert tab.locator("#decision").inner_text() == words[prediction["decision"]]
    assert "<b>C-1</b>" in tab.locator("#comparison").inner_text()
    names = [reason["feature"] for reason in prediction["reasons"]]
    rows = tab.locator("#reason-rows tr")
    shown = [row.split("\n")[0].split("\t")[0] for row in rows.all_inner_texts()]
    assert shown[0] == "Average customer"
    assert shown[1 : 1 + len(names)] == names
    assert shown[-1] == "This customer"
    effects = [
        float(text.replace("−", "-")) for text in rows.locator("td.number").all_inner_texts()[1 : 1 + len(names)]
    ]
    assert effects == pytest.approx([100 * reason["effect"] for reason in prediction["reasons"]], abs=0.051)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    assert tab.title().startswith("Score a customer")


@needs_chromium
def test_errors_are_shown_at_their_fields_and_linked_in_the_summary(tab: Any, running: Running) -> None:
    tab.goto(running.url)
    tab.get_by_label("API key").fill(KEY)
    field_of(tab, ODD["months"]).fill("-1")
    field_of(tab, ODD["plan"]).fill("")
    tab.get_by_role("button", name="Score this customer").click()
    summary = tab.locator("#problems")
    summary.wait_for()
    assert tab.evaluate("document.activeElement.id") == "problems"
    assert "2 problems" in summary.inner_text()
    for name, words in (
        (ODD["months"], "Needs a whole number, at least 0, below 600."),
        (ODD["plan"], "Needs a value."),
    ):
        field = field_of(tab, name)
        assert field.get_attribute("aria-invalid") == "true"
        assert tab.locator(f"#{field.get_attribute('id')}-error").inner_text() == words
        summary.get_by_role("link", name=name, exact=True).click()
        assert tab.evaluate("document.activeElement.id") == field.get_attribute("id")
    assert tab.locator("[aria-invalid]").count() == 2
    assert not tab.locator("#prediction").is_visible()
    # After a correction, scoring works and the errors disappear.
    tab.get_by_role("button", name="Reset to the example").click()
    tab.get_by_role("button", name="Score this customer").click()
    tab.locator("#prediction").wait_for()
    assert not summary.is_visible()
    assert tab.locator("[aria-invalid]").count() == 0


@needs_chromium
def test_an_invalid_key_and_a_busy_service_are_explained(tab: Any, running: Running) -> None:
    tab.goto(running.url)
    tab.get_by_label("API key").fill("churn_wrong")
    tab.get_by_role("button", name="Score this customer").click()
    summary = tab.locator("#problems")
    summary.wait_for()
    assert "The API key is missing or not valid." in summary.inner_text()
    assert tab.get_by_label("API key").get_attribute("aria-invalid") == "true"
    request_id = summary.locator("code").inner_text()
    until = time.monotonic() + 5
    while request_id not in running.printed() and time.monotonic() < until:
        time.sleep(0.1)  # log lines are written in the background
    assert request_id in running.printed()
    for status, words in ((429, "Try again in 7 seconds."), (503, "The service is busy"), (500, "The service failed.")):
        tab.route("**/explain", answering(status))
        tab.get_by_role("button", name="Score this customer").click()
        tab.get_by_text(words).wait_for()
    tab.unroute_all()
    tab.route("**/explain", lambda route: route.abort())
    tab.get_by_role("button", name="Score this customer").click()
    tab.get_by_text("No response.").wait_for()


@needs_chromium
def test_the_documentation_tries_a_path(tab: Any, running: Running) -> None:
    tab.goto(f"{running.url}/docs")
    tab.get_by_label("API key").fill(KEY)
    for anchor in ("post-predict", "get-model"):
        section = tab.locator(f"#{anchor}")
        assert section.locator("code.curl").inner_text().startswith(f"curl {running.url}/")
        section.get_by_role("button", name="Send").click()
        section.locator(".reply").wait_for()
        assert section.locator(".outcome").inner_text().startswith("200.")
    shown = json.loads(tab.locator("#post-predict .reply").inner_text())
    sent = json.loads(tab.locator("#post-predict textarea").input_value())
    assert (
        shown["predictions"][0]["churn_probability"]
        == explain(running, sent["customers"][0])["predictions"][0]["churn_probability"]
    )
    assert json.loads(tab.locator("#get-model .reply").inner_text())["model_version"] == "1"
