"""The rule that decides who is held out, and how often a hold-out has been used."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# To be raised when another hash or another way to write cells as text would hold out other customers
SCHEME = 1


def holdout_rule(key: Sequence[str], customers: str, share: float, latest: float | None, rotation: int) -> str:
    """Digest of the rule that decides who is held out.

    Two models may be compared on a hold-out only if both were trained under the same rule: otherwise one of them may have
    been trained on customers of the hold-out.

    Parameters
    ----------
    key
        Columns whose cells are hashed: the id, or the features.
    customers
        The rule that decides which rows are one customer, such as ``id``.
    share
        Share of customers that are held out.
    latest
        Share of the latest rows in which they are evaluated; None without a date.
    rotation
        The table's number of rotations.
    """
    rule = {
        "scheme": SCHEME,
        "key": list(key),
        "customers": customers,
        "share": share,
        "latest": latest,
        "rotation": rotation,
    }
    return hashlib.sha256(json.dumps(rule, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True)
class HoldoutUse:
    """The hold-out of a run, and the models that were evaluated on it.

    Attributes
    ----------
    rule
        Digest of the rule that decides who is held out.
    digest
        Digest of the held-out rows.
    model
        Digest of the model of this run.
    contract
        Digest of the contract.
    earlier
        Tags of earlier evaluations of the table: ``holdout_rule``, ``digest.holdout``, ``model_digest``, ``gate.anchor``.
    """

    rule: str
    digest: str
    model: str
    contract: str
    earlier: Sequence[Mapping[str, str]] = ()

    @property
    def uses(self) -> int:
        """Number of distinct models that were evaluated on these rows, this one included."""
        return len(self._models({"holdout_rule": self.rule, "digest.holdout": self.digest}))

    def attempts(self, baseline: str) -> int:
        """Number of distinct models that were compared with this version under this rule, this one included."""
        return len(self._models({"holdout_rule": self.rule, "gate.anchor": baseline}))

    def _models(self, wanted: Mapping[str, str]) -> set[str]:
        same = [tags for tags in self.earlier if all(tags.get(name) == value for name, value in wanted.items())]
        return {self.model, *(tags.get("model_digest", "") for tags in same)}
