"""The versions that a challenger is compared with: champion and anchor, and why one of them cannot be compared."""

from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from churn_pipeline.evaluation.comparison import Baseline
from churn_pipeline.evaluation.holdout_rule import HoldoutUse
from churn_pipeline.evaluation.model_record import RegisteredVersion

NO_VERSION = "none"


@dataclass(frozen=True, eq=False)
class Baselines:
    """Champion and anchor on the hold-out.

    Attributes
    ----------
    compared
        The baselines; one if champion and anchor are the same version.
    champion, anchor
        Numbers of the versions that hold the aliases; ``none`` without one.
    notes
        What a reader must know about them, as sentences.
    """

    compared: tuple[Baseline, ...] = ()
    champion: str = NO_VERSION
    anchor: str = NO_VERSION
    notes: tuple[str, ...] = field(default=())


def score_baselines(
    champion: RegisteredVersion | None, anchor: RegisteredVersion | None, features: pd.DataFrame, use: HoldoutUse
) -> Baselines:
    """Predict the hold-out with champion and anchor, as far as they may be compared.

    A champion without an anchor, as in older registries, is the anchor too. If the contract changed, there is no anchor.

    Parameters
    ----------
    champion, anchor
        The registered versions; None without one.
    features
        Inputs of the held-out customers, of shape (n, n_features).
    use
        The hold-out, and earlier evaluations.
    """
    found = Baselines(champion=_number(champion), anchor=_number(anchor))
    anchor = anchor or champion
    notes: tuple[str, ...] = ()
    if anchor is not None and anchor.version_tags.get("contract_digest") != use.contract:
        notes = (
            f"The contract has changed since version {anchor.version}, so the anchor is reset: the next version that is "
            "promoted becomes the anchor.",
        )
        anchor = None
    versions = {"champion": champion, "anchor": anchor}
    if champion is not None and anchor is not None and champion.version == anchor.version:
        versions = {"champion and anchor": champion}
    compared = tuple(_score(name, version, features, use) for name, version in versions.items() if version is not None)
    return replace(found, compared=compared, notes=notes)


def _number(version: RegisteredVersion | None) -> str:
    return NO_VERSION if version is None else version.version


def _score(name: str, version: RegisteredVersion, features: pd.DataFrame, use: HoldoutUse) -> Baseline:
    subject = f"The {name} (version {version.version})"
    if version.version_tags.get("holdout_rule") != use.rule:
        return Baseline(
            name,
            version.version,
            problem=(
                f"{subject} was trained when another rule decided who is held out. It may have been trained on customers who "
                "are held out now. `kedro rotate-holdout` refits it and the challenger under one new rule."
            ),
        )
    try:
        p: Any = version.model.predict_proba(features)[:, 1]
    except (KeyError, ValueError) as error:
        advice = "If the contract changed, compare the reports and decide yourself."
        problem = f"{subject} cannot score these customers: {error}. {advice}"
        return Baseline(name, version.version, problem=problem)
    attempt = use.attempts(version.version) if "anchor" in name else 1
    return Baseline(name, version.version, p, attempt=attempt)
