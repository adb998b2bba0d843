"""The static site of the graph: the page finds the run's status, which has no error message."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from churn_pipeline.viz_site import REDIRECT, STATUS_ADDRESS, finish_site

STATUS = {"nodes": {"a": {"status": "failed", "error": {"message": "alice@example.com"}}}, "pipeline": {"error": None}}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The files of a site that `finish_site` reads, with the page and scripts of the installed kedro-viz."""
    spec = find_spec("kedro_viz")
    assert spec is not None
    assert spec.origin is not None
    html = Path(spec.origin).parent / "html"
    for folder in ("assets", "api"):
        (tmp_path / folder).mkdir()
    for file in html.rglob("*.js"):
        (tmp_path / "assets" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "index.html").write_bytes((html / "index.html").read_bytes())
    (tmp_path / "api" / "run-status").write_text(json.dumps(STATUS), encoding="utf-8")
    return tmp_path


def test_the_page_of_the_installed_kedro_viz_is_redirected_once(site: Path) -> None:
    finish_site(site)
    finish_site(site)

    page = (site / "index.html").read_text(encoding="utf-8")
    assert page.count(REDIRECT) == 1
    assert page.index(REDIRECT) < page.index("<script ", page.index(REDIRECT) + len(REDIRECT))
    assert f'".{STATUS_ADDRESS}"' in page


def test_no_error_message_is_published(site: Path) -> None:
    finish_site(site)

    status = json.loads((site / "api" / "run-status").read_text(encoding="utf-8"))
    assert status["nodes"]["a"] == {"status": "failed", "error": None}
    assert "alice" not in str(status)


def test_another_build_of_kedro_viz_fails_loudly(site: Path) -> None:
    for file in (site / "assets").glob("*.js"):
        file.write_text("fetch('./api/run-status')", encoding="utf-8")

    with pytest.raises(SystemExit, match="kedro-viz no longer requests"):
        finish_site(site)
