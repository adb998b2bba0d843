"""The equivalence check: an ONNX model gives the trained model's answers, also on rows that are hard to convert."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from onnxruntime import InferenceSession
from sklearn.pipeline import Pipeline

from churn_pipeline.modelling.onnx_conversion import OUTPUT, model_inputs
from churn_pipeline.modelling.onnx_graph import OnnxConversionError

Floats = npt.NDArray[np.float64]

# The two models may decide differently only for a churn probability this close to the threshold.
THRESHOLD_MARGIN = 1e-6
# One row takes other code paths in onnxruntime than many rows; at most this many are predicted one at a time.
SINGLE_ROWS = 500
SHOWN = 5


class EquivalenceError(OnnxConversionError):
    """The ONNX model differs from the trained model."""


@dataclass(frozen=True)
class Comparison:
    """Churn probabilities by the trained model and by the ONNX model, and thresholds, of the same rows; of shape (n,)."""

    trained: Floats
    onnx: Floats
    threshold: Floats
    tolerance: float

    @cached_property
    def difference(self) -> Floats:
        """Absolute difference in each row; infinite if either is NaN."""
        return np.nan_to_num(np.abs(self.trained - self.onnx), nan=np.inf)

    @cached_property
    def decision_differs(self) -> npt.NDArray[np.bool_]:
        """Whether the two are on different sides of its threshold."""
        return np.asarray((self.trained >= self.threshold) != (self.onnx >= self.threshold))

    @cached_property
    def failing_rows(self) -> npt.NDArray[np.intp]:
        """Positions of rows that differ too much, the largest difference first."""
        far_from_threshold = ~(np.abs(self.trained - self.threshold) <= THRESHOLD_MARGIN)
        rows = np.flatnonzero((self.difference > self.tolerance) | (self.decision_differs & far_from_threshold))
        return rows[np.argsort(-self.difference[rows], kind="stable")]

    def report(self) -> dict[str, Any]:
        """Summarise the comparison in numbers."""
        return {
            "rows": len(self.difference),
            "largest_difference": float(self.difference.max(initial=0.0)),
            "decisions_that_differ": int(self.decision_differs.sum()),
        }


@dataclass(frozen=True)
class Predictors:
    """The trained model and its ONNX model, with the columns that they read and the rules of their comparison."""

    trained: Pipeline
    session: InferenceSession
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    tolerance: float

    def compare(self, rows: pd.DataFrame, threshold: Floats) -> Iterator[tuple[str, Comparison]]:
        """Compare predictions of all rows together, then of some rows one at a time; each with a name suffix.

        `threshold`, of shape (n,), is the break-even of each row.
        """
        trained = self.trained.predict_proba(rows)[:, 1]
        yield "", Comparison(trained, self._predict(rows), threshold, self.tolerance)
        single = spread_positions(len(rows))
        singly = self._predict_singly(rows.iloc[single])
        yield ", one at a time", Comparison(trained[single], singly, threshold[single], self.tolerance)

    def _predict(self, rows: pd.DataFrame) -> Floats:
        answer = self.session.run([OUTPUT], model_inputs(rows, self.numeric, self.categorical))[0]
        return np.asarray(answer, dtype=np.float64)

    def _predict_singly(self, rows: pd.DataFrame) -> Floats:
        inputs = model_inputs(rows, self.numeric, self.categorical)
        answers = [
            self.session.run([OUTPUT], {name: cells[row : row + 1] for name, cells in inputs.items()})[0]
            for row in range(len(rows))
        ]
        return np.concatenate([np.empty(0), *answers])


def spread_positions(count: int) -> npt.NDArray[np.intp]:
    """Return at most `SINGLE_ROWS` positions, spread evenly over ``count`` rows."""
    return np.linspace(0, count - 1, min(count, SINGLE_ROWS)).astype(np.intp)


def describe_customers(name: str, comparison: Comparison) -> str:
    """Describe the customers that differ by position and difference, without their values."""
    first = [f"row {row} by {comparison.difference[row]:.2g}" for row in comparison.failing_rows[:SHOWN]]
    return f"{_count(name, comparison)}: {'; '.join(first)}"


def describe_hard_rows(name: str, comparison: Comparison, rows: pd.DataFrame, origins: pd.DataFrame) -> str:
    """Describe the hard rows that differ, and the columns in which each was changed from its customer.

    A changed value is shown only if no customer has it or one close to it.
    """
    first = []
    for row in comparison.failing_rows[:SHOWN]:
        changed, origin = rows.iloc[row], origins.iloc[rows.index[row]]
        columns = changed.index[[not _is_same(changed[name], origin[name]) for name in changed.index]]
        shown = [
            name if _is_known(origins[name], changed[name]) else f"{name} = {str(changed[name])[:30]}"
            for name in columns
        ]
        first.append(f"row {row} by {comparison.difference[row]:.2g} (changed: {', '.join(shown) or 'nothing'})")
    return f"{_count(name, comparison)}: {'; '.join(first)}"


def _is_same(one: Any, other: Any) -> bool:
    return bool(one == other or (pd.isna(one) and pd.isna(other)))


def _is_known(column: pd.Series, value: Any) -> bool:
    """Whether a customer has the value; for numbers, up to rounding."""
    return bool(np.isclose(column, value).any() if isinstance(value, float) else (column == value).any())


def _count(name: str, comparison: Comparison) -> str:
    return f"{len(comparison.failing_rows):,} of {len(comparison.difference):,} {name}"
