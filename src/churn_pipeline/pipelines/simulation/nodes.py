"""Nodes of the simulation: from the configured model to chunks of a raw table and of its true probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from churn_pipeline.pipelines.simulation.language import Level
from churn_pipeline.pipelines.simulation.population import BLOCK, Table, draw_blocks, identifiers
from churn_pipeline.pipelines.simulation.settings import Simulation


def simulate(simulation: Simulation) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Draw a customer base and, in a separate table, each customer's true probability of leaving.

    Memory depends on ``chunk_rows`` and on one block of customers (times the dates of the window), not on the number of
    rows. The rows do not depend on ``chunk_rows``.

    Parameters
    ----------
    simulation : Simulation
        The parameters of the draw, ``params:simulation``.

    Yields
    ------
    customers : DataFrame of shape (at most chunk_rows, n_columns)
        The table as a source system would export it: levels as categories, charges in currency, the total as text. In
        the monthly layout the date (ISO text) follows the identifier.
    truth : DataFrame of shape (at most chunk_rows, 2 or 3)
        Identifier, date (monthly layout only), and the probability (float64, 6 decimals) from which the row's label was
        drawn.
    """
    blocks = draw_blocks(simulation)
    blocks_at_once = max(1, simulation.chunk_rows // (BLOCK * simulation.window))
    while batch := list(islice(blocks, blocks_at_once)):
        table = {name: np.concatenate([block[name] for block in batch]) for name in batch[0]}
        for start in range(0, len(table[simulation.model.truth_column]), simulation.chunk_rows):
            rows = slice(start, start + simulation.chunk_rows)
            yield make_frames({name: column[rows] for name, column in table.items()}, simulation)


def make_frames(table: Table, simulation: Simulation) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Convert the arrays of a table to the two frames that `simulate` yields."""
    model = simulation.model
    identifier = identifiers(model.identifier, table[model.identifier.column], simulation.seed)
    keys: dict[str, Any] = {model.identifier.column: identifier.astype(object)}
    if simulation.layout == "monthly":
        keys[model.date_column] = _levels(table[model.date_column], simulation.dates)
    columns = keys | {name: _column(name, table, simulation) for name in model.columns if name not in keys}
    truth = keys | {model.truth_column: table[model.truth_column]}
    return pd.DataFrame(columns), pd.DataFrame(truth)


def _column(name: str, table: Table, simulation: Simulation) -> Any:
    model = simulation.model
    fault = model.faults.get(name)
    if fault and fault.text is not None:
        return _levels(np.zeros(len(table[name]), dtype=np.int8), (fault.text,))
    if name in model.levels:
        return _levels(table[name], model.levels[name])
    if name not in (model.charge.column, model.total.column):
        return table[name]
    amount = np.rint(table[name] * (fault.multiply if fault and fault.multiply else 1)) / 100
    if name == model.charge.column:
        return amount
    # As text, because a blank is not a number; Arrow writes the shortest decimal that parses to the same number.
    text = pa.array(amount, mask=table[model.age.column] == 0).cast(pa.string())
    return text.fill_null(model.total.blank).to_numpy(zero_copy_only=False)


def _levels(codes: NDArray[Any], levels: tuple[Level, ...]) -> Any:
    if all(isinstance(level, int) for level in levels):
        return np.array(levels)[codes]
    dtype = pd.CategoricalDtype(pd.Index(levels))
    return pd.Categorical.from_codes(codes, dtype=dtype)  # type: ignore[arg-type]
