"""Everything that is tried: each fault, what a command must say, what is kept, and what to do."""

from typing import NamedTuple

KILL = "the command is killed (`kill -9`)"
AGAIN = "Run the same command again."


class Case(NamedTuple):
    """One row of the page.

    Attributes
    ----------
    fault
        What happens.
    where
        At which point.
    says
        Words that the command's last message must contain; none for a command that is killed or succeeds.
    kept
        What is kept.
    fix
        What to do.
    """

    fault: str
    where: str
    says: tuple[str, ...]
    kept: str
    fix: str


CASES: dict[str, Case] = {
    "kill data_engineering": Case(
        KILL,
        "a random node of `data_engineering`",
        (),
        "Files of finished nodes. The next run marks the killed one as `KILLED` in MLflow.",
        AGAIN,
    ),
    "kill modelling": Case(
        KILL,
        "a random node of `modelling`",
        (),
        "Finished trials of the search. The next run marks the killed one as `KILLED` in MLflow.",
        AGAIN,
    ),
    "kill search": Case(
        KILL,
        "the search, after one of its trials",
        (),
        "Finished trials of the search. The next run marks the killed one as `KILLED` in MLflow.",
        AGAIN,
    ),
    "kill evaluation": Case(
        KILL,
        "a random node of `evaluation`",
        (),
        "All trials of the search. The next run marks the killed one as `KILLED` in MLflow.",
        AGAIN,
    ),
    "kill registration": Case(
        KILL,
        "after the version is registered, before the alias moves",
        (),
        "The alias stays on the version before; none points at the unfinished version.",
        AGAIN + " The unfinished version has no alias and may be deleted.",
    ),
    "kill packaging": Case(KILL, "a random node of `packaging`", (), "The Bento that was packaged before.", AGAIN),
    "disk full, table": Case(
        "the disk is full",
        "a customer table is written",
        ("The disk is full", "'train_features'"),
        "Everything that was written before.",
        "Free space. " + AGAIN,
    ),
    "disk full, report": Case(
        "the disk is full",
        "the leaderboard is written",
        ("The disk is full", "'leaderboard'"),
        "All trials of the search.",
        "Free space. " + AGAIN,
    ),
    "disk full, studies": Case(
        "the disk is full",
        "a trial is stored",
        ("studies.db", "full"),
        "Trials stored before.",
        "Free space. " + AGAIN,
    ),
    "disk full, runs": Case(
        "the disk is full",
        "a plot or the model is logged to the project's own MLflow store",
        ("The disk is full",),
        "All trials of the search; no alias moves.",
        "Free space. " + AGAIN,
    ),
    "two trainings": Case(
        "a second training of the table starts",
        "while the first one searches",
        ("is searching logistic on this table", "wait until it ends"),
        "The first training ends as if it were alone. MLflow shows the second one as failed.",
        "Wait, then run the second command again.",
    ),
    "tracking down at start": Case(
        "the MLflow server is down",
        "at the start",
        ("The MLflow tracking server", "does not answer"),
        "Nothing was begun.",
        "Start the server, or correct its address.",
    ),
    "tracking down in the middle": Case(
        "the MLflow server stops",
        "during the search, when a trial is recorded",
        ("The MLflow tracking server", "cannot be used"),
        "All trials of the search. The next run marks the lost one as `KILLED`.",
        "Start the server. " + AGAIN,
    ),
    "tracking unavailable": Case(
        "the MLflow server answers 503",
        "before the evaluation",
        ("The MLflow tracking server", "cannot be used"),
        "All trials of the search; no version is registered.",
        "Repair the server. " + AGAIN,
    ),
    "tracking down at registration": Case(
        "the MLflow server stops",
        "after the version is registered, before the alias moves",
        ("The MLflow tracking server", "cannot be used"),
        "The alias stays on the version before.",
        "Start the server. " + AGAIN,
    ),
    "tracking slow": Case(
        "the MLflow server is slow",
        "each packet takes 0.1 s longer",
        (),
        "Everything: the training takes longer and ends.",
        "Nothing.",
    ),
    "postgres down at start": Case(
        "PostgreSQL is down",
        "at the start",
        ("The database of searches", "CHURN_STUDIES"),
        "Files of finished nodes.",
        "Start PostgreSQL, or correct CHURN_STUDIES.",
    ),
    "postgres restarted": Case(
        "PostgreSQL is restarted",
        "during a search",
        (),
        "Everything: the search connects again and continues.",
        "Nothing.",
    ),
    "s3 unavailable": Case(
        "S3 answers 503",
        "before the evaluation",
        ("cannot be used",),
        "Files of finished nodes, and all trials of the search.",
        "Repair S3. " + AGAIN,
    ),
    "s3 wrong key": Case(
        "the S3 key is wrong", "at the start", ("AWS_",), "Nothing was begun.", "Correct the AWS variables."
    ),
    "s3 no bucket": Case(
        "the bucket is missing",
        "at the start",
        ("bucket",),
        "Nothing was begun.",
        "Create it, or correct CHURN_DATA_ROOT.",
    ),
}
