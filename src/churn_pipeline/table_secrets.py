"""Refuses a table file that contains a password, because the record of each run has the file's text."""

import re
from collections.abc import Iterator
from typing import Any

from churn_pipeline.contract.errors import Finding, TableError

SECRET_KEYS = re.compile(
    r"(password|passwd|pwd|passphrase|secret|token|(aws_)?secret_(access_)?key|(api|account)_key|\w+_(password|secret|token))",
    re.IGNORECASE,
)
# user:password@ in an address, and password=… in a connection string; ${…} reads the value from elsewhere
IN_ADDRESS = re.compile(r"://[^\s/@:'\"]*:(?!\$\{)[^\s/@'\"]+@")
IN_STRING = re.compile(r"(password|pwd)=(?!\$\{)[^\s&]", re.IGNORECASE)
FIX = (
    "Put it into conf/local/credentials.yml, or into the environment, and name the entry under `source.credentials`. "
    "Change the password if the file was shared."
)


def refuse_secrets(name: str, text: str, content: Any) -> None:
    """Check that neither the source of a table file nor an address anywhere in the file contains a password.

    Parameters
    ----------
    name, text
        Name and text of the table file.
    content
        Its content, with unresolved interpolations.

    Raises
    ------
    TableError
        If there is one. The message names the line or the key, and never the value.
    """
    lines = enumerate(text.splitlines(), start=1)
    findings = [Finding(f"line {number} contains a password", fix=FIX) for number, line in lines if _has_password(line)]
    if not findings and isinstance(content, dict):
        keys = [key for block in ("source", "truth") for key in _secret_keys(content.get(block), block)]
        findings = [Finding(f"the key {key} contains a password", fix=FIX) for key in keys]
    if findings:
        raise TableError(f"The table file {name}", findings)


def _has_password(text: str) -> bool:
    return bool(IN_ADDRESS.search(text) or IN_STRING.search(text))


def _secret_keys(block: Any, place: str) -> Iterator[str]:
    if isinstance(block, dict):
        for key, value in block.items():
            where = f"{place}.{key}"
            is_written_out = isinstance(value, str | int) and not str(value).startswith("${") and value != ""
            if SECRET_KEYS.fullmatch(str(key)) and is_written_out:
                yield where
            yield from _secret_keys(value, where)
