"""The contract of a customer table: columns, types, bounds, levels and roles, written once in ``conf/*/tables``.

This module does not import pandas, because the HTTP service uses it too.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from churn_pipeline.contract.errors import Finding, TableError
from churn_pipeline.contract.label import HORIZON_SYNTAX, Label
from churn_pipeline.contract.mistakes import mistakes

Dtype = Literal["str", "int64", "float64", "bool", "datetime64[ns]"]
Number = int | float


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Bounds(_Frozen):
    """Arguments of pandera's ``in_range``; both ends are included by default."""

    min_value: Number
    max_value: Number
    include_min: bool = True
    include_max: bool = True

    @model_validator(mode="after")
    def _check_order(self) -> "Bounds":
        if not self.min_value <= self.max_value:
            raise ValueError("min_value is above max_value")
        return self


class Lengths(_Frozen):
    """Arguments of pandera's ``str_length``, in characters."""

    min_value: int | None = None
    max_value: int | None = None

    @model_validator(mode="after")
    def _check_not_empty(self) -> "Lengths":
        if self.min_value is None and self.max_value is None:
            raise ValueError("set min_value, max_value or both")
        return self


class Column(_Frozen):
    """One column: its type, whether cells may be missing, and its checks.

    Checks have the names and arguments of pandera's (https://pandera.readthedocs.io/en/stable/checks.html).
    """

    dtype: Dtype
    title: str | None = None
    description: str | None = None
    nullable: bool = False
    unique: bool = False
    default: str | Number | bool | None = Field(
        default=None, description="Value of a missing cell, such as 0 for charges not yet made."
    )
    example: str | Number | bool | None = Field(
        default=None, description="A fictitious value for examples; needed if str_matches rejects a plain word."
    )
    isin: tuple[str | int, ...] | None = None
    in_range: Bounds | None = None
    greater_than: Number | None = None
    greater_than_or_equal_to: Number | None = None
    less_than: Number | None = None
    less_than_or_equal_to: Number | None = None
    str_matches: str | None = None
    str_length: Lengths | None = None

    @field_validator("isin", mode="before")
    @classmethod
    def _reject_boolean_levels(cls, levels: Any) -> Any:
        if isinstance(levels, list | tuple) and any(isinstance(level, bool) for level in levels):
            raise ValueError("YAML reads Yes, No, On and Off as true and false: put such levels in quotes")
        return levels

    @model_validator(mode="after")
    def _check_types(self) -> "Column":
        numeric = self.dtype in ("int64", "float64")
        bounds = ("in_range", "greater_than", "greater_than_or_equal_to", "less_than", "less_than_or_equal_to")
        for names, fits in ((bounds, numeric), (("str_matches", "str_length"), self.dtype == "str")):
            for name in names:
                if getattr(self, name) is not None and not fits:
                    raise ValueError(f"the check {name} cannot be used with the type {self.dtype}")
        if self.isin is not None:
            kind = {"str": str, "int64": int}.get(self.dtype)
            if kind is None or not all(isinstance(level, kind) for level in self.isin):
                raise ValueError(f"isin needs levels of the column's type, str or int64; the type is {self.dtype}")
            if not self.isin or len(set(self.isin)) != len(self.isin):
                raise ValueError("isin needs at least one level, and no level twice")
            if "" in self.isin:
                raise ValueError("'' is not a level: an empty cell is a missing one (nullable: true)")
        if self.str_matches is not None:
            _require(lambda: re.compile(self.str_matches or ""), "str_matches is not a regular expression")
        if self.default is not None:
            self._check_default(self.default)
        return self

    def _check_default(self, default: str | Number | bool) -> None:
        kinds = {"int64": int, "float64": int | float, "bool": bool}.get(self.dtype, str)
        if not isinstance(default, kinds) or (isinstance(default, bool) and self.dtype != "bool"):
            raise ValueError(f"the default must be of the column's type, {self.dtype}")
        if self.dtype == "datetime64[ns]":
            _require(lambda: datetime.fromisoformat(str(default)), "the default is not a date in ISO format")
        if self.isin is not None and default not in self.isin:
            raise ValueError("the default is not one of the levels")

    @property
    def checks(self) -> dict[str, Any]:
        """The configured checks, by pandera's name, as plain YAML values."""
        not_checks = {"dtype", "title", "description", "nullable", "unique", "default", "example"}
        names = type(self).model_fields.keys() - not_checks
        return {
            name: value for name, value in self.model_dump(mode="json").items() if name in names and value is not None
        }

    @property
    def kind(self) -> Literal["numeric", "categorical", "date"]:
        """How the model treats the column; a column with levels is categorical, even if they are numbers."""
        if self.dtype == "datetime64[ns]":
            return "date"
        return "categorical" if self.dtype == "str" or self.isin is not None else "numeric"


def _require(parse: Callable[[], object], problem: str) -> None:
    try:
        parse()
    except (ValueError, re.error):
        raise ValueError(problem) from None


class Target(_Frozen):
    """The label's column and the value that means churn."""

    column: str
    positive: str | int | bool


class Roles(_Frozen):
    """The roles of columns. A column without a role is a feature."""

    target: Target
    id: str | None = None
    date: str | None = None
    protected: tuple[str, ...] = ()
    protected_features: tuple[str, ...] = Field(
        default=(), description="Protected columns that are features nevertheless."
    )
    ignored: tuple[str, ...] = ()
    segments: tuple[str, ...] = Field(
        default=(), description="Further columns, besides the protected ones, by which the model is evaluated."
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_value(cls, roles: Any) -> Any:
        if isinstance(roles, Mapping) and "value" in roles:
            column = json.dumps(roles["value"], ensure_ascii=False)
            raise ValueError(f"value has moved to costs: write `value: {{column: {column}, months: 12}}` there")
        return roles


class Contract(_Frozen):
    """The contract of a customer table."""

    name: str
    description: str = ""
    columns: dict[str, Column]
    roles: Roles
    label: Label
    costs: dict[str, Any] | None = Field(
        default=None, description="The table's cost model; without it, the one in the parameters is used."
    )
    holdout_rotation: int = Field(default=0, ge=0, description="Raised by `kedro rotate-holdout`.")

    @classmethod
    def parse(cls, content: Mapping[str, Any], name: str) -> "Contract":
        """Build a contract from the content of a table file.

        Raises
        ------
        TableError
            When the content is invalid; it lists every mistake.
        """
        try:
            return cls.model_validate({**content, "name": name})
        except ValidationError as error:
            findings = [Finding(mistake) for mistake in mistakes(error, cls)]
            raise TableError(f"The contract of table '{name}' has mistakes", findings) from None

    @model_validator(mode="after")
    def _check_roles(self) -> "Contract":
        roles, problems = self.roles, []
        named = [roles.target.column, roles.id, roles.date]
        named += [*roles.protected, *roles.protected_features, *roles.ignored, *roles.segments]
        problems += [
            f"roles name the column '{name}', which is missing from columns"
            for name in named
            if name and name not in self.columns
        ]
        single = [
            name for name in (roles.target.column, roles.id, roles.date, *roles.protected, *roles.ignored) if name
        ]
        problems += [
            f"the column '{name}' has two roles" for name in sorted({n for n in single if single.count(n) > 1})
        ]
        problems += [
            f"'{name}' is in protected_features but not in protected"
            for name in set(roles.protected_features) - set(roles.protected)
        ]
        if not problems:
            problems += self._role_problems()
        problems += self.value_problems(self.value_column)
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _role_problems(self) -> Iterator[str]:
        roles = self.roles
        target = self.columns[roles.target.column]
        if target.nullable:
            yield "the target may not be nullable"
        if target.dtype not in ("str", "int64", "bool"):
            yield f"the target must be str, int64 or bool; its type is {target.dtype}"
        kind = {"str": str, "int64": int, "bool": bool}.get(target.dtype, object)
        if type(roles.target.positive) is not kind:
            yield f"the target's positive value must be of its type, {target.dtype} (Yes and No need quotes in YAML)"
        elif target.isin is not None and roles.target.positive not in target.isin:
            yield "the target's positive value is not one of its levels"
        if roles.id is not None and self.columns[roles.id].nullable:
            yield "the id may not be nullable"
        if roles.date is not None and self.columns[roles.date].nullable:
            yield "the date may not be nullable"
        if roles.date is not None and self.columns[roles.date].dtype != "datetime64[ns]":
            yield "the date's type must be datetime64[ns]"
        if roles.date is not None and not self.label.horizon:
            yield f"roles.date needs label.horizon, the time until a row's label is known: {HORIZON_SYNTAX}"
        if not self.features:
            yield "no feature is left: every column has another role"
        for name in self.features:
            if self.columns[name].kind == "date":
                yield f"'{name}' is a date without a role: set it as roles.date or list it under roles.ignored"

    @property
    def features(self) -> tuple[str, ...]:
        """The model's inputs, in the table's order: every column without another role."""
        # The properties are not cached: pydantic's model_copy would carry a cached value over to a changed contract.
        roles = self.roles
        excluded = {roles.target.column, roles.id, roles.date, *roles.ignored}
        excluded |= set(roles.protected) - set(roles.protected_features)
        return tuple(name for name in self.columns if name not in excluded)

    @property
    def numeric(self) -> tuple[str, ...]:
        """The numeric features."""
        return tuple(name for name in self.features if self.columns[name].kind == "numeric")

    @property
    def categorical(self) -> tuple[str, ...]:
        """The categorical features."""
        return tuple(name for name in self.features if self.columns[name].kind == "categorical")

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that identify a row: id, and date if there is one; empty without an id."""
        if self.roles.id is None:
            return ()
        return (self.roles.id, self.roles.date) if self.roles.date else (self.roles.id,)

    @property
    def value_column(self) -> str | None:
        """The column that the table's own cost model takes customer values from."""
        value = (self.costs or {}).get("value")
        return value.get("column") if isinstance(value, Mapping) else None

    def value_problems(self, name: str | None) -> Iterator[str]:
        """What is wrong with the value column of a cost model; None if it has none."""
        if name is not None and name not in self.columns:
            yield f"costs.value uses the column '{name}', which is missing from columns"
        elif name is not None and (self.columns[name].kind != "numeric" or name == self.roles.target.column):
            yield f"costs.value uses the column '{name}', which is the target or not numeric"

    def digest(self) -> str:
        """SHA-256 of the contract, whatever the layout of its file, without name, costs, segments and rotation."""
        excluded: Any = {"name": True, "costs": True, "holdout_rotation": True, "roles": {"segments"}}
        content = self.model_dump(mode="json", exclude=excluded, exclude_defaults=True)
        content["columns"] = list(content["columns"].items())
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
