"""The proof that an ONNX model is the model that was trained: the same answers, also where equality is hard."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from onnxruntime import InferenceSession

from churn_pipeline.modelling.onnx_conversion import OUTPUT, model_inputs
from churn_pipeline.modelling.onnx_graph import OnnxConversionError

Floats = npt.NDArray[np.float64]

# Two models decide otherwise about a customer only where the probability is as near as this to the threshold.
BESIDE_THRESHOLD = 1e-6
# One customer at a time takes other paths through the runtime than many do; so many are asked alone.
ALONE = 500
SHOWN = 5


class EquivalenceError(OnnxConversionError):
    """An ONNX model that does not answer what the trained one answers."""


@dataclass(frozen=True)
class Answers:
    """Churn probabilities of the same rows by the trained model and by the compiled one, of shape (n,)."""

    trained: Floats
    compiled: Floats
    threshold: float
    tolerance: float

    @cached_property
    def apart(self) -> Floats:
        """How far the two are apart in each row; infinitely, where one gives no number."""
        return np.nan_to_num(np.abs(self.trained - self.compiled), nan=np.inf)

    @cached_property
    def decided_otherwise(self) -> npt.NDArray[np.bool_]:
        """Where the two are on different sides of the threshold."""
        return np.asarray((self.trained >= self.threshold) != (self.compiled >= self.threshold))

    @cached_property
    def broken(self) -> npt.NDArray[np.intp]:
        """Positions of the rows that disprove equality, the worst first."""
        far_from_threshold = ~(np.abs(self.trained - self.threshold) <= BESIDE_THRESHOLD)
        rows = np.flatnonzero((self.apart > self.tolerance) | (self.decided_otherwise & far_from_threshold))
        return rows[np.argsort(-self.apart[rows], kind="stable")]

    def report(self) -> dict[str, Any]:
        """Numbers alone, to be kept."""
        return {
            "rows": len(self.apart),
            "largest_difference": float(self.apart.max(initial=0.0)),
            "decisions_that_differ": int(self.decided_otherwise.sum()),
        }


def ask(
    session: InferenceSession, rows: pd.DataFrame, numeric: tuple[str, ...], categorical: tuple[str, ...]
) -> Floats:
    """The ONNX model's churn probabilities, of shape (n,)."""
    answer = session.run([OUTPUT], model_inputs(rows, numeric, categorical))[0]
    return np.asarray(answer, dtype=np.float64)


def ask_alone(
    session: InferenceSession, rows: pd.DataFrame, numeric: tuple[str, ...], categorical: tuple[str, ...]
) -> Floats:
    """The same, one row at a time."""
    inputs = model_inputs(rows, numeric, categorical)
    answers = [
        session.run([OUTPUT], {name: cells[row : row + 1] for name, cells in inputs.items()})[0]
        for row in range(len(rows))
    ]
    return np.concatenate([np.empty(0), *answers])


def some_rows(count: int) -> npt.NDArray[np.intp]:
    """Positions of the rows that are asked alone, spread over all."""
    return np.linspace(0, count - 1, min(count, ALONE)).astype(np.intp)


def describe_customers(name: str, answers: Answers) -> str:
    """Say which customers disprove equality, by position and by how much; nothing of what they are."""
    first = [f"row {row} by {answers.apart[row]:.2g}" for row in answers.broken[:SHOWN]]
    return f"{_count(name, answers)}: {'; '.join(first)}"


def describe_made_up(name: str, answers: Answers, rows: pd.DataFrame, origins: pd.DataFrame) -> str:
    """Say which made-up rows disprove equality, and by which columns they differ from the customer they were made from.

    A value is shown where it was made up, and not where some customer has it, or nearly.
    """
    first = []
    for row in answers.broken[:SHOWN]:
        made, origin = rows.iloc[row], origins.iloc[rows.index[row]]
        changed = made.index[[not _alike(made[name], origin[name]) for name in made.index]]
        said = [name if _known(origins[name], made[name]) else f"{name} = {str(made[name])[:30]}" for name in changed]
        first.append(f"row {row} by {answers.apart[row]:.2g} (changed: {', '.join(said) or 'nothing'})")
    return f"{_count(name, answers)}: {'; '.join(first)}"


def _alike(one: Any, other: Any) -> bool:
    return bool(one == other or (pd.isna(one) and pd.isna(other)))


def _known(column: pd.Series, value: Any) -> bool:
    """Whether some customer has the value; of numbers, whether one has it but for its last digits."""
    return bool(np.isclose(column, value).any() if isinstance(value, float) else (column == value).any())


def _count(name: str, answers: Answers) -> str:
    return f"{len(answers.broken):,} of {len(answers.apart):,} {name}"
