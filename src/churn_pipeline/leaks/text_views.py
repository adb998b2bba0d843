"""Cuts text features into cells: levels, filled cells, and for texts with many levels their shape, numbers and words."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from churn_pipeline.leaks.cells import Integers, Kind, View
from churn_pipeline.leaks.views import BINS, SPIKE_SHARE, bin_numbers, usual_view

# A text feature with more levels may be id-like: its levels are not quoted, but its shape is tested
QUOTED_LEVELS = 50
WORDS = 200
MAX_DIGITS = 15


def text_views(name: str, texts: pd.Series) -> Iterator[View]:
    """Views of a text feature, ``""`` for a missing cell."""
    codes, levels = pd.factorize(texts)
    quoted = len(levels) <= QUOTED_LEVELS

    def level(code: int) -> str:
        if levels[code] == "":
            return "the cell is missing"
        return f"the level is '{levels[code]}'" if quoted else "the cell has one of its levels"

    yield _view(name, codes, level, "level")
    yield from usual_view(name, codes, (texts == "").to_numpy())
    if not quoted:
        yield from _shape_views(name, codes, levels)
        yield from _number_in_text(name, codes, levels)
        yield from _word_views(name, codes, levels)


def _view(name: str, codes: np.ndarray, said: Callable[[int], str], group: str) -> View:
    return View((name,), codes.astype(np.int64), [Kind.LEVEL] * (int(codes.max()) + 1), said, group)


def _shape_views(name: str, codes: Integers, levels: pd.Index) -> Iterator[View]:
    letters = levels.str.replace(r"[^\W\d_]+", "a", regex=True)
    shapes: dict[str, pd.Index] = {
        "length": levels.str.len(),
        "first character": levels.str[:1],
        "pattern of letters and digits": letters.str.replace(r"\d+", "9", regex=True),
    }
    for shape, of_level in shapes.items():
        yield _view(name, pd.factorize(of_level)[0][codes], f"the text has one {shape}".format, shape)


def _number_in_text(name: str, codes: Integers, levels: pd.Index) -> Iterator[View]:
    """All digits of the text as one number: dates and customer numbers in order."""
    digits = pd.Series(levels.str.replace(r"\D+", "", regex=True).str[:MAX_DIGITS])
    numbers = pd.to_numeric(digits, errors="coerce").to_numpy(dtype=float)
    if not np.isnan(numbers).all():
        bins, kinds, _ = bin_numbers(numbers[codes], BINS, SPIKE_SHARE)
        group = "range of numbers in the text"
        yield View((name,), bins, kinds, lambda _: f"the text lies in one {group}", group)


def _word_views(name: str, codes: Integers, levels: pd.Index) -> Iterator[View]:
    """One view for each frequent word: texts with it, and texts without it."""
    rows_of_level = np.bincount(codes, minlength=len(levels))
    words = pd.Series(levels.str.lower().str.findall(r"[^\W\d_]{3,}")).map(set).explode().dropna()
    rows = pd.Series(rows_of_level[words.index], index=words.to_numpy()).groupby(level=0).sum()
    for word in rows[rows > SPIKE_SHARE * len(codes)].nlargest(WORDS).index:
        has = np.zeros(len(levels), dtype=bool)
        has[words.index[words == word]] = True
        said = ("the text lacks a certain word", "the text contains a certain word").__getitem__
        yield _view(name, has[codes], said, "word")
