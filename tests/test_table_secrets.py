"""A table file with a password is refused, whatever the key, and the message does not repeat it."""

from pathlib import Path

import pytest

from churn_pipeline.command_errors import actionable
from churn_pipeline.configuration import LOADER_ARGS, TableConfigLoader


def _source(folder: Path, text: str) -> object:
    file = folder / "base" / "tables" / "mine.yml"
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")
    (folder / "base" / "catalog.yml").write_text("raw: ${table:source}\n", encoding="utf-8")
    (folder / "local").mkdir()
    return TableConfigLoader(str(folder), runtime_params={"table": "mine"}, **LOADER_ARGS)["catalog"]["raw"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("source: {type: pandas.SQLQueryDataset, credentials: {con: 'postgresql://reader:hunter2@db/crm'}}", "line 1"),
        ("source:\n  type: pandas.CSVDataset\n  # con: postgresql://reader:hunter2@db/crm", "line 3"),
        (
            "source: {type: ibis.TableDataset, connection: {backend: postgres, password: hunter2}}",
            "source.connection.p",
        ),
        ("source: {type: ibis.TableDataset, connection: {options: 'host=db password=hunter2'}}", "line 1"),
        ("source: {filepath: 's3://a/b', credentials: {key: AKIA, secret: hunter2}}", "source.credentials.secret"),
        ("source: {fs_args: {client_kwargs: {aws_secret_access_key: hunter2}}}", "aws_secret_access_key"),
        ("source: {a: b}\ntruth: {credentials: {token: hunter2}}", "truth.credentials.token"),
    ],
)
def test_a_password_in_a_table_file_is_refused(tmp_path: Path, text: str, place: str) -> None:
    with pytest.raises(Exception, match="mine") as caught:
        _source(tmp_path, text)
    said = str(actionable(caught.value))
    assert said.startswith("The table file mine.yml")
    assert place in said
    assert "conf/local/credentials.yml" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "source",
    [
        "{type: pandas.SQLQueryDataset, sql: SELECT token FROM t, credentials: warehouse}",
        "{type: pandas.CSVDataset, filepath: 'https://example.com:8080/a.csv'}",
        "{type: ibis.TableDataset, connection: {user: reader, password: '${oc.env:WAREHOUSE_PASSWORD,null}'}}",
        "{con: 'postgresql+psycopg://reader@db:5432/crm'}",
    ],
)
def test_a_table_file_without_a_password_is_read(tmp_path: Path, source: str) -> None:
    assert _source(tmp_path, f"source: {source}\ncolumns: {{password: {{dtype: str}}}}")
