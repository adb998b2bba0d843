"""What the leak check found."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Tier = Literal["stop", "warn"]


@dataclass(frozen=True)
class LeakFinding:
    """One feature, or one pair of features, that gives the label away.

    Attributes
    ----------
    columns
        The feature or features.
    tier
        ``stop``: hardly possible for a feature known before the label. ``warn``: suspicious, a person has to decide.
    evidence
        A sentence with figures. It contains no value of an id-like column.
    figures
        The figures of the evidence by name, such as ``rows``, ``churners`` and ``auc``.
    """

    columns: tuple[str, ...]
    tier: Tier
    evidence: str
    figures: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{', '.join(self.columns)}: {self.evidence}"


@dataclass(frozen=True)
class LeakReport:
    """The findings, the strongest first, and the AUC of each feature alone, highest first."""

    findings: tuple[LeakFinding, ...]
    auc: dict[str, float]

    @property
    def stops(self) -> tuple[LeakFinding, ...]:
        """The findings that stop a run."""
        return tuple(finding for finding in self.findings if finding.tier == "stop")

    @property
    def warnings(self) -> tuple[LeakFinding, ...]:
        """The findings that only warn."""
        return tuple(finding for finding in self.findings if finding.tier == "warn")

    def to_dict(self) -> dict[str, Any]:
        """The report as plain types, for JSON."""
        return {"findings": [asdict(f) | {"columns": list(f.columns)} for f in self.findings], "auc": self.auc}
