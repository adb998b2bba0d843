"""Errors that a user can fix. An error about a table lists every finding, and never a customer's value."""

from collections.abc import Sequence
from dataclasses import dataclass

EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """A rule of the contract that some rows, or the whole table, violate.

    Attributes
    ----------
    rule
        The violated rule, such as ``isin`` or ``is missing``.
    column
        The column concerned; None for the table as a whole.
    count
        Number of invalid rows; 0 if the finding concerns the table and not single rows.
    rows
        The first row numbers; the row below the header is 1.
    fix
        How to fix it.
    unit
        What ``rows`` counts: ``row``, or ``line`` for lines of the file.
    """

    rule: str
    column: str | None = None
    count: int = 0
    rows: tuple[int, ...] = ()
    fix: str = ""
    unit: str = "row"

    def __str__(self) -> str:
        where = f"column '{self.column}': " if self.column is not None else ""
        text = f"{where}{self.rule}"
        if self.count:
            shown = ", ".join(map(str, self.rows[:EXAMPLES]))
            more = ", …" if self.count > len(self.rows[:EXAMPLES]) else ""
            text += f" — {self.count:,} row{'s' if self.count > 1 else ''} ({self.unit} {shown}{more})"
        return f"{text}. {self.fix}".rstrip() if self.fix else text


class ProjectError(ValueError):
    """A problem outside the code that the user has to fix: a parameter, a file, a server, a registered version.

    The message names the subject and lists one finding per line. Commands print it unchanged, without a traceback.
    """

    def __init__(self, subject: str, findings: Sequence[Finding] | str) -> None:
        self.subject = subject
        self.findings = (Finding(findings),) if isinstance(findings, str) else tuple(findings)
        super().__init__("\n".join([f"{subject}:", *(f"  - {finding}" for finding in self.findings)]))


class TableError(ProjectError):
    """A table, or the file that describes it, is invalid."""
