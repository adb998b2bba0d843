"""The documentation page of a table, generated from its contract."""

from churn_pipeline.contract.table import Column, Contract

BAR = r"\|"


def contract_page(contract: Contract) -> str:
    """The contract as a Markdown page: the label's meaning, and the role and rules of each column."""
    label, target = contract.label, contract.roles.target
    facts = [
        f"**Label:** {label.meaning.rstrip('.')}. `{target.column}` = `{target.positive}` is churn.",
        *([f"**Observed:** {label.observed}."] if label.observed else []),
        *([f"**Horizon:** {label.horizon}."] if label.horizon else []),
        f"**Row key:** {', '.join(f'`{name}`' for name in contract.key) or 'the features, because there is no id'}.",
    ]
    rows = [
        _row(
            f"`{name}`", _role(name, contract), column.dtype, _missing(column), _rules(column), column.description or ""
        )
        for name, column in contract.columns.items()
    ]
    return "\n".join(
        [
            f"# {contract.name}",
            "",
            *([contract.description, ""] if contract.description else []),
            "  \n".join(facts),
            "",
            "| column | role | type | missing | rules | meaning |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"Contract digest: `{contract.digest()}`",
            "",
        ]
    )


def _row(*cells: str) -> str:
    return f"| {' | '.join(' '.join(cell.split()).replace('|', BAR) for cell in cells)} |"


def _role(name: str, contract: Contract) -> str:
    roles = contract.roles
    named = {roles.target.column: "target", roles.id: "id", roles.date: "date"}
    parts = [named[name]] if name in named else []
    parts += ["protected"] if name in roles.protected else []
    parts += ["ignored"] if name in roles.ignored else []
    parts += [f"{contract.columns[name].kind} feature"] if name in contract.features else []
    parts += ["value"] if name == contract.value_column else []
    return ", ".join(parts)


def _missing(column: Column) -> str:
    if column.default is not None:
        return f"means {column.default}"
    return "allowed" if column.nullable else "no"


def _rules(column: Column) -> str:
    parts = []
    for name, rule in column.checks.items():
        if name == "in_range":
            parts.append(f"{rule['min_value']:g} … {rule['max_value']:g}")
        elif name == "isin":
            shown = [f"`{level}`" for level in rule[:8]]
            parts.append(", ".join([*shown, *([f"… {len(rule)} levels"] if len(rule) > len(shown) else [])]))
        else:
            parts.append(f"{name} `{rule}`")
    return "; ".join(parts)
