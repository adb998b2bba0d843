"""Fitted models with everything that the model registry stores about them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
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


@dataclass(frozen=True)
class RegisteredVersion:
    """A registered version of a model, with what its training run recorded.

    Attributes
    ----------
    name, version
        The registered model's name and the version's number.
    created
        Time of registration.
    model
        The fitted pipeline.
    documents, files
        Texts and binary contents by file name, as stored beside the model.
    run_id, tags, metrics
        Of the training run; metrics by their names without groups.
    version_tags
        Tags of the version itself, such as the gate's verdict.
    """

    name: str
    version: str
    created: datetime
    model: Any
    documents: Mapping[str, str]
    run_id: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    files: Mapping[str, bytes] = field(default_factory=dict)
    version_tags: Mapping[str, str] = field(default_factory=dict)
