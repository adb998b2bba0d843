"""Guesses the target of a drafted table: the column that says who churned, and the value that means churned."""

from dataclasses import dataclass

from churn_pipeline.contract import draft_names as names
from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.guesses import DraftedColumn

MAX_STATUS_LEVELS = 12
TARGET_DTYPES = {"str": str, "int64": int, "bool": bool}


class OptionError(TableError):
    """An option of the draft names a column or a value that the table does not have; its message is one line."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(option, problem)
        self.args = (f"{option} {problem}",)


@dataclass(frozen=True)
class GuessedTarget:
    """The target; ``is_likely`` is false if neither its name nor its levels suggest churn."""

    column: str
    positive: str | int | bool
    is_likely: bool


def guess_target(
    columns: dict[str, DraftedColumn], target: str | None = None, positive: str | None = None
) -> GuessedTarget:
    """Guess the target and its positive value; ``target`` and ``positive`` override the guesses.

    Raises
    ------
    OptionError
        When ``target`` is not a column that can be a target, or does not contain ``positive``.
    TableError
        When no column can be the target.
    """
    if target is not None:
        _check_target(target, columns)
        chosen, is_likely = target, True
    else:
        scores = {name: _score(name, drafted) for name, drafted in columns.items() if _can_be_guessed(drafted)}
        if positive is not None:
            scores = {name: score for name, score in scores.items() if _levels(columns[name]).get(positive) is not None}
            if not scores:
                raise OptionError(
                    f"--positive {positive}", "is in no column that can be the target: name the target with --target"
                )
        if not scores:
            raise TableError(
                "No target was found", "the table needs a column with two values that marks the customers who churned"
            )
        # Of equally good columns, the last one: the target is usually at the end.
        chosen = max(reversed(list(scores)), key=lambda name: scores[name])
        is_likely = scores[chosen] >= 2 or positive is not None
    levels = _levels(columns[chosen])
    if positive is not None and positive not in levels:
        shown = ", ".join(list(levels)[:6]) + (", …" if len(levels) > 6 else "")
        raise OptionError(f"--positive {positive}", f"is not a value of the column '{chosen}'; its values are {shown}")
    value = levels[positive] if positive is not None else _guess_positive(chosen, columns[chosen])
    kind = TARGET_DTYPES[columns[chosen].column.dtype]
    return GuessedTarget(chosen, kind(value), is_likely)


def check_column(option: str, name: str, columns: dict[str, DraftedColumn]) -> None:
    """Raise an `OptionError` if the table has no such column."""
    if name not in columns:
        shown = ", ".join(list(columns)[:6]) + (", …" if len(columns) > 6 else "")
        raise OptionError(f"{option} {name}", f"is not a column of the file; its columns are {shown}")


def _check_target(target: str, columns: dict[str, DraftedColumn]) -> None:
    check_column("--target", target, columns)
    drafted = columns[target]
    if drafted.column.dtype not in TARGET_DTYPES:
        raise OptionError(f"--target {target}", "cannot be the target: it contains neither text, integers nor booleans")
    if drafted.distinct < 2:
        raise OptionError(f"--target {target}", "cannot be the target: it has fewer than two different values")


def _levels(drafted: DraftedColumn) -> dict[str, object]:
    return {str(level): level for level in drafted.cells.value_counts().index}


def _can_be_guessed(drafted: DraftedColumn) -> bool:
    if drafted.column.dtype not in TARGET_DTYPES:
        return False
    if drafted.distinct == 2:
        return True
    is_status = drafted.column.isin is not None and 2 < drafted.distinct <= MAX_STATUS_LEVELS
    return is_status and any(names.means_churned(level) for level in drafted.column.isin or ())


def _score(name: str, drafted: DraftedColumn) -> float:
    """How much the name and the levels suggest that the column is the target; a plain Yes/No column has 1."""
    text = names.words(name)
    rest = names.AROUND_A_TARGET.sub("", text).split()
    score = 0.0
    if not names.NOT_A_TARGET.search(text):
        if names.CHURN.search(text):
            score = 6.0 if len(rest) <= 1 else 5.0
        elif names.LEAVE.search(text):
            score = 4.0 if len(rest) <= 1 else 2.0
        elif names.OUTCOME.search(text) or names.STAY.search(text):
            score = 1.0
        elif names.ACTIVE.search(text):
            score = 0.5
    score -= 0.1 * min(len(text.split()) - 1, 5)
    levels = [str(level).lower() for level in drafted.cells.dropna().unique()]
    if any(names.means_churned(level) for level in levels):
        score += 3.5
    elif any(names.means_churned(level, closed_too=True) for level in levels):
        score += 1.5
    elif set(levels) <= {*names.TRUE_WORDS, *names.FALSE_WORDS}:
        score += 1.0
    # A column that is filled in only for some customers describes them, but does not say who churned.
    return score - (3.0 if drafted.cells.isna().mean() > 0.05 else 0.0)


def _guess_positive(name: str, drafted: DraftedColumn) -> object:
    text = names.words(name)
    by_share = list(drafted.cells.value_counts().index)
    for closed_too in (False, True):
        for level in by_share:
            if names.means_churned(level, closed_too):
                return level
    words = {str(level).lower(): level for level in by_share}
    says_stayed = names.STAY.search(text) or names.ACTIVE.search(text)
    positive = names.FALSE_WORDS if says_stayed else names.TRUE_WORDS
    return next((words[word] for word in positive if word in words), by_share[-1])
