"""A fitted model with everything that the model registry stores about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class ModelRecord:
    """A fitted model and its registry entry.

    Attributes
    ----------
    model
        The fitted scikit-learn pipeline.
    numeric, categorical
        Input columns in the order of the signature: float64, then str.
    example
        Input rows made up from the contract, so that no customer is written to the registry.
    metadata
        Tags of the registered version, such as digests.
    documents, files
        Texts and binary contents stored with the model, by file name.
    run_description
        The version's description, in Markdown.
    """

    model: Any
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    example: pd.DataFrame
    metadata: Mapping[str, str]
    documents: Mapping[str, str] = field(default_factory=dict)
    run_description: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
