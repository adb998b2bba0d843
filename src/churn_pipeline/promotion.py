"""Promotion of a registered version: whether its verdict still holds, and which version is the anchor afterwards."""

from datetime import UTC, datetime

import click
import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from churn_pipeline.datasets.registered_model import is_absent
from churn_pipeline.evaluation.baselines import NO_VERSION
from churn_pipeline.evaluation.gate import PASSED

# Tag of a version that is or was the champion: its time of promotion
PROMOTED = "promoted"
# If one of these tags differs, two versions cannot be compared
COMPARABLE = ("contract_digest", "holdout_rule")


def find_alias(client: MlflowClient, model: str, alias: str) -> ModelVersion | None:
    """Return the version under an alias; None without one."""
    try:
        return client.get_model_version_by_alias(model, alias)
    except mlflow.exceptions.MlflowException as error:
        if not is_absent(error, model):
            raise
        return None


def find_version(client: MlflowClient, model: str, number: int | None) -> ModelVersion:
    """Return the version of a model with this number, or the challenger.

    Raises
    ------
    click.ClickException
        If there is no such version.
    """
    if number is None:
        challenger = find_alias(client, model, "challenger")
        if challenger is None:
            raise click.ClickException(
                f"The model '{model}' has no challenger: train one first (kedro run --pipelines training)."
            )
        return challenger
    try:
        return client.get_model_version(model, str(number))
    except mlflow.exceptions.MlflowException as error:
        if not is_absent(error, model):
            raise
        raise click.ClickException(f"{model} has no version {number}: `kedro mlflow ui` lists its versions.") from None


def gate_tag(version: ModelVersion, name: str) -> str | None:
    """Return a tag of the gate; earlier versions have a dot in its name, which Unity Catalog rejects."""
    value: str | None = version.tags.get(f"gate_{name}", version.tags.get(f"gate.{name}"))
    return value


def check_promotable(
    chosen: ModelVersion, champion: ModelVersion | None, anchor: ModelVersion | None, table: str
) -> None:
    """Check that a version passed the gate, and that champion and anchor are still those it was compared with.

    A version that has been champion before may return without a check.

    Raises
    ------
    click.ClickException
        If it may not be promoted; the message says why, and how to continue.
    """
    if PROMOTED in chosen.tags:
        return
    verdict = chosen.tags.get("gate", "unknown")
    if verdict not in PASSED:
        raise click.ClickException(
            f"Version {chosen.version} was not promoted: its gate verdict is '{verdict}'. --force promotes it anyway."
        )
    for alias, now in (("champion", champion), ("anchor", anchor)):
        measured, current = gate_tag(chosen, alias) or "unknown", NO_VERSION if now is None else str(now.version)
        # An alias that is on this version already was moved by a promotion that was interrupted.
        if current not in (measured, str(chosen.version)):
            raise click.ClickException(
                f"Version {chosen.version} was not promoted: its verdict '{verdict}' compares it with {alias} {measured}, "
                f"but the {alias} is {current} now. Train again (kedro run --pipelines training --params table={table}; "
                "finished searches are reused) and promote the new version. --force promotes this one anyway."
            )


def next_anchor(chosen: ModelVersion, champion: ModelVersion | None, anchor: ModelVersion | None) -> ModelVersion:
    """The version that is the anchor after a promotion.

    It is the promoted one if that beats the anchor, if there is no anchor, or if the two cannot be compared because the
    contract or the rule of the hold-out changed. In older registries without an anchor, the champion counts as the anchor.
    """
    before = anchor or champion
    if before is None:
        return chosen
    # A rollback is no new evidence, and neither is a comparison with a former anchor.
    measured = gate_tag(chosen, "champion" if anchor is None else "anchor")
    evidence = PROMOTED not in chosen.tags and measured == str(before.version)
    if evidence and gate_tag(chosen, "beats_anchor") == "true":
        return chosen
    changed = any(chosen.tags.get(name) != before.tags.get(name) for name in COMPARABLE)
    return chosen if changed else before


def promote_version(table: str, model: str, number: int | None, force: bool, reset_anchor: bool) -> None:
    """Move the alias ``champion`` of a table's model, and ``anchor`` if needed, and print where they are."""
    client = mlflow.MlflowClient()
    chosen = find_version(client, model, number)
    champion, anchor = (find_alias(client, model, alias) for alias in ("champion", "anchor"))
    if not force:
        check_promotable(chosen, champion, anchor, table)
    following = chosen if reset_anchor else next_anchor(chosen, champion, anchor)
    # The champion comes after its anchor: an interrupted promotion changes nothing that packaging reads.
    client.set_registered_model_alias(model, "anchor", following.version)
    client.set_registered_model_alias(model, "champion", chosen.version)
    client.set_model_version_tag(model, chosen.version, PROMOTED, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
    click.echo(
        f"Version {chosen.version} of {model} is now the champion (gate: {chosen.tags.get('gate', 'unknown')}). "
        f"The anchor is version {following.version}."
    )
