from pathlib import Path

import pytest
from pydantic import ValidationError

from churn_pipeline.serving.keys import make_key
from churn_pipeline.serving.settings import PREFIX, Settings, SettingsError, settings_table

LINE = make_key("crm")[1]


def read(**given: str) -> Settings:
    return Settings.from_environment({PREFIX + name.upper(): value for name, value in {"keys": LINE, **given}.items()})


def refusal(environment: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(environment)
    return str(caught.value)


def test_only_a_key_must_be_set() -> None:
    settings = read()
    assert settings.keys == (LINE,)
    assert settings.authentication == "on"
    assert settings.prediction_log is None
    assert not settings.rate_limit_is_shared


def test_values_are_read_as_their_types(tmp_path: Path) -> None:
    settings = read(
        keys=f"{LINE}, {make_key('web')[1]}",
        cors_origins="https://a.example,https://b.example",
        max_rows="500",
        request_seconds="2.5",
        prediction_log=str(tmp_path),
        prediction_log_share="0.1",
        prediction_log_id_key="0123456789abcdef",
    )
    assert len(settings.keys) == 2
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert (settings.max_rows, settings.request_seconds) == (500, 2.5)
    assert settings.prediction_log == tmp_path
    assert "0123456789abcdef" not in repr(settings)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        read().authentication = "off"  # type: ignore[misc]


def test_without_keys_the_error_shows_how_to_make_one() -> None:
    said = refusal({})
    assert "python -m churn_pipeline.serving.keys NAME" in said
    assert "CHURN_SERVING_AUTHENTICATION=off" in said
    assert "\n" not in said


@pytest.mark.parametrize("value", ["no", "false", "0", "OFF"])
def test_authentication_is_disabled_only_by_off(value: str) -> None:
    assert "CHURN_SERVING_AUTHENTICATION" in refusal({"CHURN_SERVING_AUTHENTICATION": value})
    assert Settings.from_environment({"CHURN_SERVING_AUTHENTICATION": "off"}).authentication == "off"


def test_a_file_of_keys_is_enough_and_an_empty_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# the CRM's\n{LINE}\n")
    assert Settings.from_environment({"CHURN_SERVING_KEYS_FILE": str(file)}).keys_file == file
    file.write_text("# no keys\n")
    assert "no API key is set" in refusal({"CHURN_SERVING_KEYS_FILE": str(file)})
    file.write_text("crm:plain-text-key\n")
    said = refusal({"CHURN_SERVING_KEYS_FILE": str(file)})
    assert "line 1" in said
    assert "plain-text-key" not in said
    assert "cannot be read" in refusal({"CHURN_SERVING_KEYS_FILE": str(tmp_path / "none")})


def test_all_problems_are_reported_at_once_without_values() -> None:
    said = refusal(
        {
            "CHURN_SERVING_KEYS": "crm:hunter2",
            "CHURN_SERVING_RATE_LIMIT": "often",
            "CHURN_SERVING_MAX_ROWS": "0",
            "CHURN_SERVING_REQUEST_SECONDS": "nan",
            "CHURN_SERVING_RATE_LIMIT_STORE": "redis://user:hunter2@host",
            "CHURN_SERVING_PREDICTION_LOG_ID_KEY": "hunter2",
            "CHURN_SERVING_LOG_LEVEL": "loud",
            "CHURN_SERVING_MAX_ROW": "5",
        }
    )
    for name in ("KEYS", "RATE_LIMIT", "MAX_ROWS", "REQUEST_SECONDS", "RATE_LIMIT_STORE", "PREDICTION_LOG_ID_KEY"):
        assert f"CHURN_SERVING_{name}: " in said
    assert "CHURN_SERVING_LOG_LEVEL: " in said
    assert "CHURN_SERVING_MAX_ROW is not a setting: use CHURN_SERVING_MAX_ROWS" in said
    assert "hunter2" not in said
    assert "often" not in said


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("CHURN_SERVING_RATELIMIT", "CHURN_SERVING_RATE_LIMIT"),
        ("CHURN_SERVICE_KEYS", "CHURN_SERVING_KEYS"),
        ("churn_serving_keys", "CHURN_SERVING_KEYS"),
        ("CHURN_SERVING_AUTHENTIFICATION", "CHURN_SERVING_AUTHENTICATION"),
        ("CHURN_SERVING_SHIPMENT", "CHURN_SERVING_BUNDLE"),
    ],
)
def test_an_unknown_name_is_refused_with_a_suggestion(name: str, near: str) -> None:
    assert f"{name} is not a setting: use {near}" in refusal({"CHURN_SERVING_KEYS": LINE, name: "x"})


def test_variables_of_kubernetes_and_other_programs_are_ignored() -> None:
    environment = {
        "CHURN_SERVING_KEYS": LINE,
        "CHURN_SERVICE_HOST": "10.0.0.1",
        "CHURN_SERVICE_PORT": "3000",
        "CHURN_SERVING_SERVICE_HOST": "10.0.0.1",
        "CHURN_SERVING_SERVICE_PORT_HTTP": "3000",
        "CHURN_SERVING_PORT": "tcp://10.0.0.1:3000",
        "CHURN_SERVING_PORT_3000_TCP_ADDR": "10.0.0.1",
        "CHURN_PUBLIC_DATA": "/data",
    }
    assert Settings.from_environment(environment).keys == (LINE,)


def test_an_empty_variable_is_not_set() -> None:
    assert read(keys_file="", max_rows="").max_rows == 10_000


def test_a_store_without_its_package_is_refused() -> None:
    assert "CHURN_SERVING_RATE_LIMIT_STORE" in refusal(
        {"CHURN_SERVING_KEYS": LINE, "CHURN_SERVING_RATE_LIMIT_STORE": "async+nosuch://host"}
    )


def test_every_setting_is_in_the_table_with_a_meaning() -> None:
    rows = settings_table().splitlines()[2:]
    assert len(rows) == len(Settings.model_fields)
    for field, row in zip(Settings.model_fields, rows, strict=True):
        name, _, meaning = (cell.strip() for cell in row.strip("|").split("|"))
        assert name == f"`CHURN_SERVING_{field.upper()}`"
        assert meaning.endswith(".")
