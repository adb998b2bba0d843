"""Errors that a person can fix. A table reports every finding at once, and never a customer's value."""

from collections.abc import Sequence
from dataclasses import dataclass

EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """One rule that some rows (or the whole table) break.

    Attributes
    ----------
    rule
        The rule in the contract's words, such as ``isin`` or ``not missing``.
    column
        The column it is about; None for the table as a whole.
    count
        How many rows break it; 0 when the finding is about the table and not about rows.
    rows
        The first few row numbers, counted from 1 below the header.
    fix
        What a person can do about it.
    """

    rule: str
    column: str | None = None
    count: int = 0
    rows: tuple[int, ...] = ()
    fix: str = ""

    def __str__(self) -> str:
        where = f"column '{self.column}': " if self.column is not None else ""
        text = f"{where}{self.rule}"
        if self.count:
            shown = ", ".join(map(str, self.rows[:EXAMPLES]))
            more = ", …" if self.count > len(self.rows[:EXAMPLES]) else ""
            text += f" — {self.count:,} row{'s' if self.count > 1 else ''} (row {shown}{more})"
        return f"{text}. {self.fix}".rstrip() if self.fix else text


class ProjectError(ValueError):
    """Something outside the code that a person has to fix: a parameter, a file, a server, a registered version.

    The message names the subject, then every finding on a line of its own. It is shown as it is, without a traceback.
    """

    def __init__(self, subject: str, findings: Sequence[Finding] | str) -> None:
        self.subject = subject
        self.findings = (Finding(findings),) if isinstance(findings, str) else tuple(findings)
        super().__init__("\n".join([f"{subject}:", *(f"  - {finding}" for finding in self.findings)]))


class TableError(ProjectError):
    """A table, or the file that describes it, cannot be used as it is."""
