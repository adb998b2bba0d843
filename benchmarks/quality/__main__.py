"""The command `python -m benchmarks.quality`."""

import argparse
import sys
from collections.abc import Sequence

from benchmarks.quality.measure import CONTENDERS, measure
from benchmarks.quality.report import write_result
from benchmarks.quality.tables import FOLDS, SETS


def main(
    sets: Sequence[str], tables: Sequence[str], contenders: Sequence[str], again: Sequence[str], folds: Sequence[int]
) -> int:
    """Measure what is missing, write the results, and list what failed."""
    failed = []
    for name in sets:
        for table in SETS[name].tables:
            if contenders and (not tables or table in tables):
                failed += measure(name, SETS[name], table, contenders, again, folds)
        write_result(name)
    for failure in failed:
        print(failure, file=sys.stderr)
    return 1 if failed else 0


def _names(known: Sequence[str], text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; choose from {', '.join(known)}")
    return names


if __name__ == "__main__":
    every_table = [table for one in SETS.values() for table in one.tables]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--sets", type=lambda text: _names(list(SETS), text), default=list(SETS))
    parser.add_argument(
        "--tables", type=lambda text: _names(every_table, text), default=[], help="default: all tables of the sets"
    )
    parser.add_argument("--contenders", type=lambda text: _names(CONTENDERS, text), default=list(CONTENDERS))
    parser.add_argument(
        "--again", type=lambda text: _names(CONTENDERS, text), default=[], help="contenders to measure again"
    )
    parser.add_argument("--folds", default=",".join(str(number) for number in range(1, FOLDS + 1)), help="such as 1,2")
    parser.add_argument("--report", action="store_true", help="only write the results again from the stored scores")
    given = parser.parse_args()
    chosen = [] if given.report else given.contenders
    sys.exit(main(given.sets, given.tables, chosen, given.again, [int(fold) for fold in given.folds.split(",")]))
