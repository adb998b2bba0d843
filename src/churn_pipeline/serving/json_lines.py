"""Lines of JSON for log files, in ASCII: no reader splits them at a character such as U+2028."""

import json
from typing import Any

import msgspec
import numpy as np

_ascii = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


def json_line(value: Any) -> bytes:
    """Encode a value as JSON, without a line break.

    Parameters
    ----------
    value
        Built-in types and numpy's numbers. NaN and infinity become null.

    Raises
    ------
    TypeError
        If the value has any other type.
    """
    try:
        line = _encode(value)
    except UnicodeEncodeError:  # half of a surrogate pair, such as in the name of a file
        return _ascii(value).encode()
    return line if line.isascii() else _ascii(msgspec.json.decode(line)).encode()


def _builtin(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str):  # msgspec refuses its subclasses
        return str(value)
    raise TypeError(f"a value of type {type(value).__name__} cannot be written as JSON")


_encode = msgspec.json.Encoder(enc_hook=_builtin).encode
