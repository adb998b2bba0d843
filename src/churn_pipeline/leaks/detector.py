"""The leak check: cells of single features, small trees, the AUC of each feature, and pairs of features."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd

from churn_pipeline.leaks.cells import (
    Cell,
    Floats,
    Integers,
    Kind,
    Labels,
    View,
    cells_of,
    groups_of,
    make_labels,
    out_of_fold_shares,
    separation,
)
from churn_pipeline.leaks.report import LeakFinding, LeakReport
from churn_pipeline.leaks.rules import cell_finding, feature_findings
from churn_pipeline.leaks.settings import LeakSettings
from churn_pipeline.leaks.text_views import text_views
from churn_pipeline.leaks.trees import tree_shares
from churn_pipeline.leaks.views import number_views, pair_codes, relation_views

# Pairs are tested among the features with the highest AUC, because their number grows with the square
PAIR_FEATURES = 50


def find_leaks(
    features: pd.DataFrame, churned: Integers, settings: LeakSettings, seed: int, groups: Integers | None = None
) -> LeakReport:
    """Find features that give the label away, alone or in pairs.

    The explanation "Why leak-free" describes the tests and the two tiers.

    Parameters
    ----------
    features : DataFrame of shape (n, columns)
        Model inputs: numeric features as float64 (missing: NaN), others as str (missing: ``""``).
    churned : int array of shape (n,)
        1 for churned, 0 for stayed. If a class is missing, nothing is found.
    settings
        Limits, and the features that may not stop a run.
    seed
        Decides the folds, and the sample of a large table.
    groups : int array of shape (n,), optional
        The customer of each row; None if each row is a customer of its own.
    """
    rows = len(features)
    churned = np.asarray(churned, dtype=np.int64)
    if not 0 < churned.sum() < rows:
        return LeakReport((), {}, rows, rows)
    if rows > settings.max_rows:
        drawn = np.sort(np.random.default_rng(seed).choice(rows, settings.max_rows, replace=False))
        features, churned = features.iloc[drawn], churned[drawn]
        groups = None if groups is None else groups[drawn]
    labels = make_labels(churned, seed, groups)
    aucs, alone = _test_features(features, labels, settings)
    rest = features[[name for name in sorted(aucs, key=lambda name: -aucs[name]) if (name,) not in alone]]
    found = [*alone.values(), *_test_pairs(rest[rest.columns[:PAIR_FEATURES]], labels, settings)]
    sample = f"; tested on {len(features):,} of {rows:,} rows" if len(features) < rows else ""
    findings = sorted((_finish(finding, settings, sample) for finding in found), key=_weakness)
    aucs = dict(sorted(aucs.items(), key=lambda item: -item[1]))
    return LeakReport(tuple(findings), aucs, rows, len(features))


def _test_features(
    features: pd.DataFrame, labels: Labels, settings: LeakSettings
) -> tuple[dict[str, float], dict[tuple[str, ...], LeakFinding]]:
    """The AUC of each feature, and the strongest finding of each feature that has one."""
    cut = {name: list(_views(name, features[name])) for name in map(str, features)}
    tests = sum(view.tests for found in cut.values() for view in found) + 2 * len(cut)
    aucs: dict[str, float] = {}
    findings: dict[tuple[str, ...], LeakFinding] = {}
    for name, found in cut.items():
        shares = [out_of_fold_shares(view.codes, labels) for view in found]
        separations = [separation(share, labels) for share in shares]
        aucs[name] = max(auc for auc, _, _ in separations)
        cells = [cell for view, share in zip(found, shares, strict=True) for cell in _cells(view, share, labels, tests)]
        if features[name].dtype.kind == "f" and features[name].notna().any():
            tree = View((name,), found[0].codes, [Kind.ORDERED], str, "range of values, found by a small tree,")
            cells += groups_of(tree, tree_shares(features[name].to_numpy(), labels), labels, tests)
        candidates = [*feature_findings(name, separations, settings), *_findings(cells, labels, settings)]
        if candidates:
            findings[(name,)] = min(candidates, key=_weakness)
    return aucs, findings


def _views(name: str, feature: pd.Series) -> Iterator[View]:
    if feature.dtype.kind == "f":
        return number_views(name, feature.to_numpy())
    return text_views(name, feature.astype(str))


def _test_pairs(features: pd.DataFrame, labels: Labels, settings: LeakSettings) -> Iterator[LeakFinding]:
    """The strongest finding of each pair that gives away more than its two features alone."""
    coarse = {name: pair_codes(features[name]) for name in map(str, features)}
    odds = {name: labels.odds(out_of_fold_shares(codes, labels)) for name, codes in coarse.items()}
    tests = 4 * len(coarse) * (len(coarse) - 1)  # four views of a pair, two groups each
    for pair in combinations(coarse, 2):
        cells: list[Cell] = []
        for view in _pair_views(pair, features, coarse):
            shares = out_of_fold_shares(view.codes, labels)
            cells += groups_of(view, shares, labels, tests, odds_alone=odds[pair[0]] * odds[pair[1]])
        candidates = list(_findings(cells, labels, settings))
        if candidates:
            yield min(candidates, key=_weakness)


def _pair_views(pair: tuple[str, str], features: pd.DataFrame, coarse: dict[str, Integers]) -> Iterator[View]:
    first, second = coarse[pair[0]], coarse[pair[1]]
    yield View(pair, first * (second.max() + 1) + second, [Kind.PAIR], str, "combination of cells")
    if all(features[name].dtype.kind == "f" for name in pair):
        yield from relation_views(pair, *(features[name].to_numpy() for name in pair))


def _cells(view: View, shares: Floats, labels: Labels, tests: int) -> Iterator[Cell]:
    yield from cells_of(view, shares, labels, tests)
    yield from groups_of(view, shares, labels, tests)


def _findings(cells: Iterable[Cell], labels: Labels, settings: LeakSettings) -> Iterator[LeakFinding]:
    for cell in cells:
        yield from cell_finding(cell, labels, settings)


def _finish(finding: LeakFinding, settings: LeakSettings, sample: str) -> LeakFinding:
    allowed = [f"`{name}`" for name in finding.columns if name in settings.allowed]
    note = f"; leaks.allowed contains {' and '.join(allowed)}" if allowed else ""
    tier = "warn" if allowed else finding.tier
    return replace(finding, tier=tier, evidence=f"{finding.evidence}{sample}{note}")


def _weakness(finding: LeakFinding) -> tuple[bool, bool, float]:
    """Sorts the strongest finding first: by tier, then what concerns all rows (the AUC), then large cells."""
    figures = finding.figures
    return finding.tier != "stop", "auc" not in figures, -figures.get("auc", figures.get("reach", 0.0))
