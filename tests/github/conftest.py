"""Loads the scripts of the workflows, which are in no package, by their paths."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
from tests.conftest import ROOT

SCRIPTS = ROOT / ".github/scripts"


@pytest.fixture(scope="package")
def load_script() -> Iterator[Callable[[str], ModuleType]]:
    """Load a script by its name."""
    loaded = []

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"github_{name}", SCRIPTS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look there
        loaded.append(spec.name)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in loaded:
        del sys.modules[name]
