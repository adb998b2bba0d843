"""A Kedro plugin of the fault tests: it kills or pauses a command at the point that the variable FAULT names.

``kill: before NODE``, ``kill: after NODE``, ``kill: saving DATASET`` and ``kill: call MODULE:CLASS.METHOD``; ``pause`` waits
at the same points until the test, which listens on FAULT_PORT, answers. No code under ``src`` knows of it.
"""

import functools
import os
import pkgutil
import signal
import socket
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.pipeline.node import Node

HOST = "127.0.0.1"
METADATA = {
    "METADATA": "Metadata-Version: 2.1\nName: faults\nVersion: 0\n",
    "entry_points.txt": "[kedro.hooks]\nfaults = tests.faults.plugin:FAULTS\n",
}


class Faults:
    """Reaches the points that Kedro announces."""

    @hook_impl
    def after_context_created(self) -> None:
        """Make a call such as ``call mlflow:MlflowClient.set_tag`` a point.

        Only a command that is killed fits the folds in processes, which must end too; starting them takes longer.
        """
        if not os.environ.get("FAULT", "").startswith("kill"):
            pkgutil.resolve_name("churn_pipeline.modelling.cross_validation").ROWS_FOR_THREADS = 0
        point = os.environ.get("FAULT", "").partition(": ")[2]
        if point.startswith("call "):
            place, _, name = point.removeprefix("call ").rpartition(".")
            owner = pkgutil.resolve_name(place)
            called = getattr(owner, name)

            @functools.wraps(called)
            def reached(*values: Any, **named: Any) -> Any:
                _reach(point)
                return called(*values, **named)

            setattr(owner, name, reached)

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Reach the point before a node; its inputs are loaded."""
        _reach(f"before {node.name}")

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Reach the point after a node; its outputs are not saved."""
        _reach(f"after {node.name}")

    @hook_impl
    def before_dataset_saved(self, dataset_name: str) -> None:
        """Reach the point before a dataset is saved."""
        _reach(f"saving {dataset_name}")


def _reach(point: str) -> None:
    action, _, wanted = os.environ.get("FAULT", "").partition(": ")
    if point != wanted:
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os.environ["FAULT"] = ""  # a pause is for the first time only
    with socket.create_connection((HOST, int(os.environ["FAULT_PORT"]))) as test:
        test.recv(1)


def install(folder: Path) -> None:
    """Write the metadata by which Kedro finds this plugin; the folder must be on PYTHONPATH."""
    package = folder / "faults-0.dist-info"
    package.mkdir(parents=True, exist_ok=True)
    for name, text in METADATA.items():
        (package / name).write_text(text, encoding="utf-8")


FAULTS = Faults()
