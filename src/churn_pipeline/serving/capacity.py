"""Whether the answer of a request is still wanted."""


class Abandoned(Exception):  # noqa: N818 - not a fault of the program
    """The caller got another answer in the meantime: this one is neither counted nor logged."""


def always() -> bool:
    """The commitment of a request that cannot be abandoned."""
    return True
