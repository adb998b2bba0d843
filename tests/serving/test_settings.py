from pathlib import Path

import pytest
from pydantic import ValidationError

from churn_pipeline.serving.environment import secret_fields
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


SECRETS = {"prediction_log_id_key": "0123456789abcdef", "rate_limit_store": "async+redis://:0123456789abcdef@host:6379"}


def test_every_secret_has_a_value_to_test() -> None:
    assert secret_fields(Settings) == set(SECRETS)


@pytest.mark.parametrize("field", SECRETS)
def test_a_secret_is_read_from_a_file(tmp_path: Path, field: str) -> None:
    file = tmp_path / "secret"
    for ending in ("", "\n", "\r\n"):
        file.write_text(SECRETS[field] + ending, newline="")
        settings = read(**{f"{field}_file": str(file)})
        assert getattr(settings, field).get_secret_value() == SECRETS[field]
        assert "0123456789abcdef" not in repr(settings)
    assert read(**{field: SECRETS[field], f"{field}_file": ""}) == settings


@pytest.mark.parametrize("field", SECRETS)
def test_a_secret_in_a_variable_and_in_a_file_is_refused(tmp_path: Path, field: str) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRETS[field])
    name = PREFIX + field.upper()
    said = refusal({"CHURN_SERVING_KEYS": LINE, name: SECRETS[field], f"{name}_FILE": str(file)})
    assert said == f"Invalid settings: {name} and {name}_FILE are both set: set only one of them"


@pytest.mark.parametrize("field", SECRETS)
def test_a_file_without_a_valid_secret_is_refused_without_its_content(tmp_path: Path, field: str) -> None:
    file = tmp_path / "secret"
    name = PREFIX + field.upper()
    given = {"CHURN_SERVING_KEYS": LINE, f"{name}_FILE": str(file)}
    assert f"{name}_FILE: the file cannot be read (FileNotFoundError)" in refusal(given)
    file.write_text("\n")
    assert f"{name}_FILE: the file is empty" in refusal(given)
    file.write_bytes(b"\xff\xfe")
    assert f"{name}_FILE: the file cannot be read (UnicodeDecodeError)" in refusal(given)
    file.write_text("hunter2")
    said = refusal(given)
    assert f"{name}: must " in said
    assert "hunter2" not in said


def test_only_secrets_have_a_file() -> None:
    said = refusal({"CHURN_SERVING_KEYS": LINE, "CHURN_SERVING_RATE_LIMIT_FILE": "x"})
    assert "CHURN_SERVING_RATE_LIMIT_FILE is not a setting" in said


@pytest.mark.parametrize("store", ["redis://host", "memory://", "async+redis://host:port", "async+redis://[", "host"])
def test_a_store_that_cannot_be_used_is_refused(store: str) -> None:
    given = {"CHURN_SERVING_KEYS": LINE, "CHURN_SERVING_RATE_LIMIT_STORE": store}
    assert "CHURN_SERVING_RATE_LIMIT_STORE: must be an asynchronous store" in refusal(given)


def test_the_total_size_of_the_prediction_log_fits_the_files_of_all_workers(tmp_path: Path) -> None:
    given = {"workers": "3", "prediction_log_bytes": "1000", "prediction_log": str(tmp_path)}
    assert read(**given, prediction_log_total_bytes="4000").prediction_log_total_bytes == 4000
    environment = {PREFIX + name.upper(): value for name, value in {**given, "keys": LINE}.items()}
    said = refusal({**environment, "CHURN_SERVING_PREDICTION_LOG_TOTAL_BYTES": "3999"})
    assert "CHURN_SERVING_PREDICTION_LOG_TOTAL_BYTES: must be at least 4000" in said
    del given["prediction_log"]
    assert read(**given, prediction_log_total_bytes="1").prediction_log is None


def test_every_setting_is_in_the_table_with_a_meaning() -> None:
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in settings_table().splitlines()[2:]]
    names = [name for field in Settings.model_fields for name in (field, f"{field}_file" if field in SECRETS else "")]
    assert [name for name, _, _ in cells] == [f"`CHURN_SERVING_{name.upper()}`" for name in names if name]
    assert all(meaning.endswith(".") for _, _, meaning in cells)
    assert "***" not in settings_table()
