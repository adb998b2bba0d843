"""The packaged project's own entry point."""

import pytest

from churn_pipeline.__main__ import main


def test_the_entry_point_is_kedro_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])

    assert ended.value.code == 0
    assert "--pipelines" in capsys.readouterr().out
