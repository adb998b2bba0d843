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
    """The result of the leak check.

    Attributes
    ----------
    findings
        The strongest first.
    auc
        The AUC of each feature alone, highest first.
    rows, tested
        Rows of the table, and rows that were tested; fewer if the table was sampled.
    """

    findings: tuple[LeakFinding, ...]
    auc: dict[str, float]
    rows: int
    tested: int

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
        findings = [{**asdict(finding), "columns": list(finding.columns)} for finding in self.findings]
        return {"findings": findings, "auc": self.auc, "rows": self.rows, "tested": self.tested}
