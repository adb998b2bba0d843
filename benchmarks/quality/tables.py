"""The tables of the benchmark, their outer folds, and the files that contenders read."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from benchmarks.common import DEVELOPMENT, ROOT, project
from churn_pipeline.contract.cells import churned, model_inputs
from churn_pipeline.contract.table import Contract
from churn_pipeline.contract.validation import validate_table
from churn_pipeline.pipelines.data_engineering.identity import identify_customers
from churn_pipeline.pipelines.data_engineering.splitting import SplitSettings

WORK = ROOT / "build" / "quality"
FOLDS = 5


@dataclass(frozen=True)
class TableSet:
    """Tables with one common result, and the kinds of outer folds that they have."""

    tables: tuple[str, ...]
    kinds: tuple[str, ...]
    result: str


SETS = {
    "shown": TableSet(("telco", "mlc_churn", "iranian"), ("plain", "grouped"), "quality"),
    "development": TableSet(("bank", "credit_card", "ecommerce", "gym"), ("grouped",), "quality_development"),
}


@dataclass(frozen=True)
class Rows:
    """The valid rows of a table.

    `groups` numbers the customers, by the rule of the project's split; `alike` numbers the sets of rows with identical features.
    """

    contract: Contract
    customers: pd.DataFrame
    features: pd.DataFrame
    label: pd.Series
    groups: np.ndarray
    alike: np.ndarray


def read(table: str, **params: object) -> Rows:
    """Read and validate a table of conf/ or of the benchmark; `params` are runtime parameters."""
    with project(DEVELOPMENT, table=table, **params) as context:
        contract: Contract = context.catalog.load("contract")
        customers = validate_table(context.catalog.load("raw_customers"), contract).customers
        split = SplitSettings.model_validate(context.params["split"])
    features = model_inputs(customers, contract)
    groups = identify_customers(customers, contract, split.identical_rows).groups
    alike = features.groupby(list(features), sort=False, dropna=False).ngroup().to_numpy()
    return Rows(contract, customers, features, churned(customers, contract), groups, alike)


def outer_folds(label: np.ndarray, alike: np.ndarray, kinds: tuple[str, ...]) -> dict[str, list[np.ndarray]]:
    """Masks of the training rows per fold, by kind of folds.

    In grouped folds, rows with identical features stay in the same fold. If there are plain folds too, a table without
    identical rows has no grouped ones.
    """

    def masks(splits: Iterator[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        return [np.isin(np.arange(len(label)), train) for train, _ in splits]

    folds = {}
    if "plain" in kinds:
        folds["plain"] = masks(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(label, label))
    if "grouped" in kinds and (len(np.unique(alike)) < len(alike) or "plain" not in kinds):
        splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
        folds["grouped"] = masks(splitter.split(label, label, alike))
    return folds


@dataclass(frozen=True)
class Fold:
    """One outer fold of an exported table: `mask` is 1 for training rows, `groups` is None if each row is a customer."""

    folder: Path
    kind: str
    number: int
    groups: Path | None

    @property
    def name(self) -> str:
        """Kind and number."""
        return f"{self.kind}-{self.number}"

    @property
    def mask(self) -> Path:
        """The file of the mask."""
        return self.folder / f"{self.name}.csv"

    def digest(self) -> str:
        """Digest of features, labels and training rows: results are comparable only if it is the same."""
        content = b"".join(
            (self.folder / name).read_bytes() for name in ("features.csv", "churned.csv", self.mask.name)
        )
        return hashlib.sha256(content).hexdigest()[:16]

    def held_out_labels(self) -> np.ndarray:
        """Labels of the rows to predict."""
        labels = np.loadtxt(self.folder / "churned.csv", dtype="int64")
        return np.asarray(labels[np.loadtxt(self.mask, dtype="int64") == 0])


def export_rows(rows: Rows, folder: Path) -> None:
    """Write features, their types and the labels for the contenders."""
    folder.mkdir(parents=True, exist_ok=True)
    rows.features.to_csv(folder / "features.csv", index=False)
    kinds = {name: "category" if name in rows.contract.categorical else "float64" for name in rows.features}
    (folder / "kinds.json").write_text(json.dumps(kinds), encoding="utf-8")
    np.savetxt(folder / "churned.csv", rows.label.to_numpy(), fmt="%d")


def export(table: str, tables: TableSet) -> list[Fold]:
    """Write a table and its outer folds to build/quality.

    Contenders get groups if customers have several rows: the project's customers in plain folds, and in grouped folds the
    rows with identical features.
    """
    rows, folder = read(table), WORK / table
    export_rows(rows, folder)
    folds = []
    for kind, masks in outer_folds(rows.label.to_numpy(), rows.alike, tables.kinds).items():
        groups = rows.alike if kind == "grouped" else rows.groups
        file = folder / f"{kind}-groups.csv" if len(np.unique(groups)) < len(groups) else None
        if file:
            np.savetxt(file, groups, fmt="%d")
        for number, mask in enumerate(masks, start=1):
            fold = Fold(folder, kind, number, file)
            np.savetxt(fold.mask, mask.astype("int64"), fmt="%d")
            folds.append(fold)
    return folds
