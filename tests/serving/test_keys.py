import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from churn_pipeline.serving.keys import KeyRing, main, make_key, read_keys


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def write(file: Path, *lines: str) -> None:
    """Write the lines with a new modification time, because a test is faster than the clock of the file system."""
    Clock.now += 10
    file.write_text("".join(f"{line}\n" for line in lines))
    os.utime(file, (Clock.now, Clock.now))


def test_a_key_is_valid_and_not_stored() -> None:
    key, line = make_key("crm")
    assert KeyRing([line]).name_of(key.encode()) == "crm"
    assert key not in line
    assert line == f"crm:{hashlib.sha256(key.encode()).hexdigest()}"


def test_keys_are_long_and_never_the_same() -> None:
    keys = {make_key("crm")[0] for _ in range(100)}
    assert len(keys) == 100
    assert min(map(len, keys)) >= 43


@given(st.binary(max_size=100))
def test_other_bytes_are_not_valid(tried: bytes) -> None:
    lines = [make_key(name)[1] for name in ("crm", "web")]
    assert KeyRing(lines).name_of(tried) is None


def test_a_hash_is_not_a_valid_key() -> None:
    _, line = make_key("crm")
    assert KeyRing([line]).name_of(line.partition(":")[2].encode()) is None
    assert KeyRing([line]).name_of(line.encode()) is None


def test_every_stored_key_is_compared_for_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    made = [make_key(f"key{number}") for number in range(5)]
    ring = KeyRing([line for _, line in made])
    compared = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(1) or compare(a, b))
    for key in (made[0][0], made[4][0], "another"):
        compared.clear()
        ring.name_of(key.encode())
        assert len(compared) == 5


def test_a_key_deleted_from_the_file_stops_working(tmp_path: Path) -> None:
    clock = Clock()
    file = tmp_path / "keys"
    (crm, crm_line), (web, web_line) = make_key("crm"), make_key("web")
    write(file, "# API keys", "", crm_line, web_line)
    ring = KeyRing(file=file, clock=clock)
    assert (ring.name_of(crm.encode()), ring.name_of(web.encode())) == ("crm", "web")
    write(file, web_line)
    assert ring.name_of(crm.encode()) is None
    assert ring.name_of(web.encode()) == "web"


def test_a_missing_file_has_no_keys_and_those_of_the_environment_stay_valid(tmp_path: Path) -> None:
    clock = Clock()
    file = tmp_path / "keys"
    (crm, crm_line), (web, web_line) = make_key("crm"), make_key("web")
    write(file, crm_line)
    ring = KeyRing([web_line], file, clock)
    file.unlink()
    Clock.now += 2
    assert ring.name_of(crm.encode()) is None
    assert ring.name_of(web.encode()) == "web"
    write(file, crm_line)
    assert ring.name_of(crm.encode()) == "crm"


def test_the_file_is_checked_at_most_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    file = tmp_path / "keys"
    write(file, make_key("crm")[1])
    ring = KeyRing(file=file, clock=clock)
    looked = []
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **kw: looked.append(1) or stat(self, **kw))
    for _ in range(100):
        Clock.now += 0.05
        ring.name_of(b"x")
    assert 3 <= len(looked) <= 6


def test_an_invalid_line_is_ignored_and_logged_by_its_number(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "keys"
    key, line = make_key("crm")
    write(file, "crm:secret-by-mistake", line)
    assert KeyRing(file=file, clock=Clock()).name_of(key.encode()) == "crm"
    assert "name:hash are ignored (1)" in caplog.text
    assert "secret-by-mistake" not in caplog.text


def test_several_keys_may_share_a_name() -> None:
    (old, old_line), (new, new_line) = make_key("crm"), make_key("crm")
    ring = KeyRing([old_line, new_line])
    assert ring.name_of(old.encode()) == ring.name_of(new.encode()) == "crm"


@pytest.mark.parametrize("name", ["", "a b", "a:b", "-a", "ä", "x" * 65, "a\n"])
def test_an_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        make_key(name)


def test_the_numbers_of_invalid_lines_are_returned() -> None:
    good = make_key("crm")[1]
    keys, wrong = read_keys([good, "", "# comment", "crm:", good.upper(), f" {good} "])
    assert [key.name for key in keys] == ["crm", "crm"]
    assert wrong == [4, 5]


def test_the_command_prints_a_key_and_its_line() -> None:
    command = [sys.executable, "-m", "churn_pipeline.serving.keys", "crm"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert KeyRing([printed[-1]]).name_of(printed[1].encode()) == "crm"


@pytest.mark.parametrize("words", [[], ["a", "b"], ["a b"]])
def test_the_command_shows_its_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "python -m churn_pipeline.serving.keys NAME" in error
    assert error.count("\n") == 1
