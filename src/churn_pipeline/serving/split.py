"""The share of customers that the second bundle answers for, by a hash: the same customer always gets the same model."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Hold-out and campaign lists use other hashes, so the split is independent of both.
PERSON = b"serving-split"


def in_share(customer: Mapping[str, Any], id_column: str | None, share: float) -> bool:
    """Whether a customer belongs to a share of all customers.

    The hash is of the customer's id or, without an id, of all its values. A customer in one share is in every larger share.

    Parameters
    ----------
    customer
        Parsed values by column.
    id_column
        The contract's id column, if it has one.
    share
        From 0 (no customer) to 1 (every customer).
    """
    identity = customer.get(id_column) if id_column is not None else None
    text = _text(identity) if identity is not None else _all_values(customer)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, person=PERSON).digest()
    return int.from_bytes(digest) < share * 2**64


def _all_values(customer: Mapping[str, Any]) -> str:
    """The known values in order of their columns; a missing value and a column that is left out are the same."""
    return json.dumps([(name, _text(value)) for name, value in sorted(customer.items()) if not _is_missing(value)])


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _text(value: Any) -> str:
    """A value as text; JSON's 5 and 5.0 are the same number."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole else value)
