"""The contract of one customer table: columns, types, bounds, levels and roles, written once in ``conf/*/tables``.

Nothing here needs pandas: the HTTP service reads the same file with the same code.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from churn_pipeline.contract.errors import Finding, TableError

Dtype = Literal["str", "int64", "float64", "bool", "datetime64[ns]"]
Number = int | float


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Bounds(_Frozen):
    """Arguments of pandera's ``in_range``: both ends belong to the range unless said otherwise."""

    min_value: Number
    max_value: Number
    include_min: bool = True
    include_max: bool = True

    @model_validator(mode="after")
    def _hold_something(self) -> "Bounds":
        if not self.min_value <= self.max_value:
            raise ValueError("min_value is above max_value")
        return self


class Lengths(_Frozen):
    """Arguments of pandera's ``str_length``, in characters."""

    min_value: int | None = None
    max_value: int | None = None

    @model_validator(mode="after")
    def _hold_something(self) -> "Lengths":
        if self.min_value is None and self.max_value is None:
            raise ValueError("needs min_value, max_value or both")
        return self


class Column(_Frozen):
    """One column, in pandera's schema format: its type, what may be missing, and its checks beside them.

    Checks are named and parameterised as in pandera (https://pandera.readthedocs.io/en/stable/checks.html).
    """

    dtype: Dtype
    title: str | None = None
    description: str | None = None
    nullable: bool = False
    unique: bool = False
    default: str | Number | bool | None = Field(
        default=None, description="What a missing cell means, such as 0 for charges not yet made."
    )
    example: str | Number | bool | None = Field(
        default=None, description="A made-up value for examples; needed where str_matches rules out a plain word."
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
    def _levels_are_listed(cls, levels: Any) -> Any:
        if isinstance(levels, list | tuple) and any(isinstance(level, bool) for level in levels):
            raise ValueError("YAML reads Yes, No, On and Off as true and false: put such levels in quotes")
        return levels

    @model_validator(mode="after")
    def _checks_fit_the_type(self) -> "Column":
        numeric = self.dtype in ("int64", "float64")
        bounds = ("in_range", "greater_than", "greater_than_or_equal_to", "less_than", "less_than_or_equal_to")
        for names, fits in ((bounds, numeric), (("str_matches", "str_length"), self.dtype == "str")):
            for name in names:
                if getattr(self, name) is not None and not fits:
                    raise ValueError(f"the check {name} does not fit the type {self.dtype}")
        if self.isin is not None:
            kind = {"str": str, "int64": int}.get(self.dtype)
            if kind is None or not all(isinstance(level, kind) for level in self.isin):
                raise ValueError(f"isin takes levels of the column's own type, str or int64; the type is {self.dtype}")
            if not self.isin or len(set(self.isin)) != len(self.isin):
                raise ValueError("isin needs at least one level, each once")
            if "" in self.isin:
                raise ValueError("'' is no level: an empty cell is a missing one (nullable: true)")
        if self.str_matches is not None:
            _require(lambda: re.compile(self.str_matches or ""), "str_matches is no regular expression")
        if self.default is not None:
            self._check_default(self.default)
        return self

    def _check_default(self, default: str | Number | bool) -> None:
        kinds = {"int64": int, "float64": int | float, "bool": bool}.get(self.dtype, str)
        if not isinstance(default, kinds) or (isinstance(default, bool) and self.dtype != "bool"):
            raise ValueError(f"the default must be of the column's own type, {self.dtype}")
        if self.dtype == "datetime64[ns]":
            _require(lambda: datetime.fromisoformat(str(default)), "the default is no date in ISO format")
        if self.isin is not None and default not in self.isin:
            raise ValueError("the default is none of the levels")

    @property
    def checks(self) -> dict[str, Any]:
        """The checks that are set, by pandera's name, as plain YAML values."""
        facts = {"dtype", "title", "description", "nullable", "unique", "default", "example"}
        names = type(self).model_fields.keys() - facts
        return {
            name: value for name, value in self.model_dump(mode="json").items() if name in names and value is not None
        }

    @property
    def kind(self) -> Literal["numeric", "categorical", "date"]:
        """How the model sees the column: levels are categories, also where they are numbers."""
        if self.dtype == "datetime64[ns]":
            return "date"
        return "categorical" if self.dtype == "str" or self.isin is not None else "numeric"


def _require(read: Callable[[], object], problem: str) -> None:
    try:
        read()
    except (ValueError, re.error):
        raise ValueError(problem) from None


class Target(_Frozen):
    """The label's column and the value in it that means churn."""

    column: str
    positive: str | int | bool


class Roles(_Frozen):
    """What columns are for. A column with no role is a feature, an input of the model."""

    target: Target
    id: str | None = None
    date: str | None = None
    value: str | None = Field(default=None, description="What a customer is worth; it may be a feature too.")
    protected: tuple[str, ...] = ()
    protected_features: tuple[str, ...] = Field(
        default=(), description="Protected columns that are inputs of the model all the same."
    )
    ignored: tuple[str, ...] = ()
    segments: tuple[str, ...] = Field(
        default=(), description="Columns by which the model is evaluated too, beside protected."
    )


class Label(_Frozen):
    """What the target means, in words."""

    meaning: str
    observed: str = ""
    horizon: str = ""
    horizon_days: int = Field(default=0, ge=0, description="Days after a row's date until its label is known.")


class Contract(_Frozen):
    """A customer table's contract.

    Raises
    ------
    TableError
        From `parse`, with every mistake in the file.
    """

    name: str
    description: str = ""
    columns: dict[str, Column]
    roles: Roles
    label: Label
    costs: dict[str, Any] | None = Field(
        default=None, description="A cost model of the table's own, in place of the one in the parameters."
    )

    @classmethod
    def parse(cls, content: Mapping[str, Any], name: str) -> "Contract":
        """Build a contract from a table file's content, and say everything that is wrong with it at once."""
        try:
            return cls.model_validate({**content, "name": name})
        except ValidationError as error:
            findings = [
                Finding(f"{'.'.join(map(str, item['loc'])) or 'contract'}: {item['msg'].removeprefix('Value error, ')}")
                for item in error.errors(include_input=False, include_url=False)
            ]
            raise TableError(f"The contract of table '{name}' has mistakes", findings) from None

    @model_validator(mode="after")
    def _roles_name_columns(self) -> "Contract":
        roles, problems = self.roles, []
        named = [roles.target.column, roles.id, roles.date, roles.value]
        named += [*roles.protected, *roles.protected_features, *roles.ignored, *roles.segments]
        problems += [
            f"roles name the column '{name}', which is not in columns"
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
            problems += self._role_types()
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _role_types(self) -> Iterator[str]:
        roles = self.roles
        target = self.columns[roles.target.column]
        if target.nullable:
            yield "the target may not be nullable"
        if target.dtype not in ("str", "int64", "bool"):
            yield f"the target must be str, int64 or bool, and is {target.dtype}"
        kind = {"str": str, "int64": int, "bool": bool}.get(target.dtype, object)
        if type(roles.target.positive) is not kind:
            yield f"the target's positive value must be of its type, {target.dtype} (Yes and No need quotes in YAML)"
        elif target.isin is not None and roles.target.positive not in target.isin:
            yield "the target's positive value is none of its levels"
        if roles.id is not None and self.columns[roles.id].nullable:
            yield "the id may not be nullable"
        if roles.date is not None and self.columns[roles.date].nullable:
            yield "the date may not be nullable"
        if roles.date is not None and self.columns[roles.date].dtype != "datetime64[ns]":
            yield "the date's type must be datetime64[ns]"
        if roles.value is not None and self.columns[roles.value].kind != "numeric":
            yield "the value column must be a number"
        if not self.features:
            yield "no column is left to be a feature"
        for name in self.features:
            if self.columns[name].kind == "date":
                yield f"'{name}' is a date without a role: name it as roles.date or under roles.ignored"

    @cached_property
    def features(self) -> tuple[str, ...]:
        """The model's inputs, in the table's order: every column without another role."""
        roles = self.roles
        others = {roles.target.column, roles.id, roles.date, *roles.ignored}
        others |= set(roles.protected) - set(roles.protected_features)
        return tuple(name for name in self.columns if name not in others)

    @cached_property
    def numeric(self) -> tuple[str, ...]:
        """The features that the model takes as numbers."""
        return tuple(name for name in self.features if self.columns[name].kind == "numeric")

    @cached_property
    def categorical(self) -> tuple[str, ...]:
        """The features that the model takes as levels."""
        return tuple(name for name in self.features if self.columns[name].kind == "categorical")

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that together name a row: id, and date where there is one; empty without an id."""
        if self.roles.id is None:
            return ()
        return (self.roles.id, self.roles.date) if self.roles.date else (self.roles.id,)

    def digest(self) -> str:
        """SHA-256 of the contract's content, the same for the same meaning however the file is laid out."""
        content = self.model_dump(
            mode="json", exclude={"name": True, "costs": True, "roles": {"segments"}}, exclude_defaults=True
        )
        content["columns"] = list(content["columns"].items())
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
