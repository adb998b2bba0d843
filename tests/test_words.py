"""Retired words: no file may bring one back. docs/style.md lists the standard terms."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Files that have to name a retired word: the page that lists them, the history, and what reads versions registered before.
EXEMPT = re.compile(
    r"^(tests/test_words\.py|docs/style\.md|CHANGELOG\.md|LICENSE|benchmarks/results/.*|.*\.(lock|png|csv|parquet|svgz))$|^requirements/.*\.txt$"
    r"|^benchmarks/contenders/.*\.txt$"
)
# Retired identifiers, keys, file names and metric names, and the standard term.
NAMES = {
    r"judg(e|es|ed|ing|er|ement|ements)(?![a-z])": "evaluate, evaluation",
    r"_?lower_(candidate|blend|linear|boosting|forest|copies|pipeline|classifier|columns|step)\b": "convert_…",
    r"\blowering(s|_[a-z]+)?\b": "ONNX conversion",
    r"\bcompil(e_model|e_chosen|e_version|ed_model)\b|CompilationError|predict_compiled": "convert_…, onnx_model",
    r"shipment": "bundle",
    r"held_rows|hold_to_contract|\bHeld\(|accept_customers": "valid_rows, validate",
    r"\breachable|_reachable": "true_probabilities, best possible",
    r"(Numeric|Categorical|Probability)Reference\b|REFERENCE_FILE": "training profile",
    r"ProofError|PROOF_FILE|\bproof\.json|packaging[./]proof": "equivalence report",
    r"\bnote\.md\b|write_note": "run description",
    r"\bfound\.(<candidate>|(logistic|splines|random_forest|gradient_boosting)\.)|record_found|\}\.found": "tuned",
    r"\bmoney(\.csv|\.py|\.md|_metrics)|(judge|logged|plots|04)_money": "profit",
    r"cost_block|cost block": "cost model",
    r"doubted|_hide_the_abyss|\b_Scene\b|\b_Course\b|\b_Judged\b": "names that say what they are",
    r"\bsurround\b|\bguarded\b|_has_room|\bis_kept\(": "one word for one thing",
    r"n_resamples: (?!int)|search\.(window|startup|deviations)\b": "resamples, parallel_trials, startup_trials, …",
    r"[\"']leave[\"']": "no_contact",
}
# Phrases that read like a translation.
PHRASES = {
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\btold\b": "reported, said, shown",
    r"\basked for\b": "required, requested",
    r"\bso many\b|so-manieth": "N, this many",
    r"\bwhoever\b": "the one who",
    r"\b(the|from the) own\b": "its own",
    r"\bnobody'?s\b|\bis nobody\b": "a made-up customer",
    r"\bproven equal\b|\bprove[sd]? (the|a|an) .{0,20}model": "equivalent within 1e-6",
    r"\b(hold|holds|held|holding) (it |them |every row |rows |(the|a) raw table )?to (its|the|their) contract": "validate",
}


def tracked_files() -> list[str]:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file() and not EXEMPT.match(name)]


@pytest.mark.parametrize(
    ("retired", "instead", "flags"),
    [
        *((word, use, re.NOFLAG) for word, use in NAMES.items()),
        *((word, use, re.IGNORECASE) for word, use in PHRASES.items()),
    ],
)
def test_no_file_brings_a_retired_word_back(retired: str, instead: str, flags: re.RegexFlag) -> None:
    pattern, found = re.compile(retired, flags), []
    for name in tracked_files():
        if pattern.search(name):
            found.append(name)
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{name}:{number}: {line.strip()[:120]}")
    assert not found, f"say {instead}:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "the judgement settings",
        "def judge_money(",
        "name: proof.json",
        "It is told so many times",
        "a customer that is nobody",
    ],
)
def test_a_retired_word_is_noticed(line: str) -> None:
    assert any(re.search(word, line) for word in NAMES) or any(re.search(word, line, re.IGNORECASE) for word in PHRASES)
