"""Messages of Kedro and OmegaConf in the words of the project's files: the key, what is wrong, and the fix."""

import difflib
import re
import traceback
from collections.abc import Iterator, Sequence

from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.contract.mistakes import plain

TITLE = "The configuration has mistakes"
RESOLVERS = (
    "table",
    "parameter",
    "name",
    "project",
    "project_file",
    "package",
    "tracking_uri",
    "local_artifacts",
    "oc.env",
    "globals",
    "runtime_params",
)
PARAMETER = re.compile(r"^- Parameter '(?P<name>[^']+)': (?P<rest>.*(?:\n(?!- ).*)*)", re.MULTILINE)
FIELD = re.compile(r"^(?P<place>\S.*)\n  (?P<message>.*) \[type=(?P<kind>\w+)", re.MULTILINE)
DATASET = re.compile(r"(?:[Dd]ataset|entry) '(?P<name>[^']+)'")
UNEXPECTED = re.compile(r"(?P<what>\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '(?P<argument>\w+)'")
LACKING = re.compile(r"(?P<what>\w+)\.__init__\(\) missing \d+ required.*: '(?P<argument>\w+)'")
UNKNOWN_TYPE = re.compile(r"(?:Dataset|Class) '(?P<name>[\w.]+)' not found")
STORED_AT = re.compile(r"filepath=(?:PurePosixPath\()?'(?P<path>[^']+)'\)?(?:.*?protocol='(?P<protocol>\w+)')?")
INSTALL = re.compile(r"[Ii]nstall (?P<package>[\w-]+) to access")
UNKNOWN_PROTOCOL = re.compile(r"Protocol not known: (\w+)")
STORAGE_MODULES = ("fsspec", "s3fs", "gcsfs", "adlfs", "botocore", "aiobotocore", "aiohttp")
BROKEN_FILE = re.compile(r"Invalid YAML or JSON file (?P<file>.+), unable to read line (?P<line>\d+)")


def parameter_mistakes(message: str) -> str:
    """Kedro's message about parameters that do not fit their type, without pydantic's wording and without values."""
    lines = []
    for parameter in PARAMETER.finditer(message):
        name, rest = parameter["name"], parameter["rest"]
        fields = list(FIELD.finditer(rest))
        lines += [f"{name}.{field['place']}: {plain(field['kind'], field['message'])}" for field in fields]
        if "value is None" in rest:
            lines.append(f"{name}: is empty: give it keys, or remove the line to use the value in conf/base")
        elif not fields:
            lines.append(f"{name}: {rest}")
    return _listed(lines) if lines else f"{TITLE}:\n{message}"


def configuration_mistake(error: BaseException) -> str:
    """The message of an error in a configuration file; an error of this project inside a resolver speaks for itself."""
    for inner in _handled(error):
        if isinstance(inner, ProjectError):
            return str(inner)
        if broken := BROKEN_FILE.search(str(inner)):
            return _listed([f"{broken['file']}: is not valid YAML near line {broken['line']}: correct it"])
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    text = re.sub(r"^\w+ raised while resolving interpolation: ", "", text).strip('"')
    key = getattr(error, "full_key", None)
    # The key is the first one that was read, not the one with the mistake.
    is_elsewhere = "incompatible container" in text
    return _listed([f"{key}: {_interpolation(text)}" if key and not is_elsewhere else _interpolation(text)])


def dataset_mistake(error: BaseException) -> str | None:
    """The message of a catalog entry from which no dataset can be made; None for other errors."""
    text = str(error)
    name = DATASET.search(text)
    entry = f"The dataset '{name['name']}' in the catalog" if name else "A dataset in the catalog"
    if found := UNEXPECTED.search(text):
        return f"{entry} is wrong: {found['what']} has no argument '{found['argument']}': correct or remove it"
    if found := LACKING.search(text):
        return f"{entry} is wrong: {found['what']} needs '{found['argument']}': add it"
    if "is missing from dataset catalog configuration" in text:
        return f"{entry} has no type: add one, such as `type: pandas.CSVDataset`"
    if "is not a valid dataset configuration" in text:
        return f"{entry} must have keys, such as {{type: pandas.CSVDataset, filepath: data/customers.csv}}"
    if found := UNKNOWN_PROTOCOL.search(text):
        return f"The address {found[1]}:// has an unknown protocol: write for example s3://bucket/folder, or a folder"
    if found := INSTALL.search(text):
        return (
            f"The package {found['package']} is missing: install it; for S3, `pip install 'churn_pipeline[production]'`"
        )
    if found := UNKNOWN_TYPE.search(text):
        return f"The type '{found['name']}' was not found: kedro-datasets lists the types, such as pandas.CSVDataset"
    return None


def storage_mistake(chain: Sequence[BaseException]) -> str | None:
    """The message of an error that a store such as S3 raised; None for other errors.

    Parameters
    ----------
    chain
        The error, and its causes.
    """
    # s3fs translates an error of the server into one of Python, from which it raises.
    error = next((each for each in chain if origin(each).startswith(STORAGE_MODULES)), None)
    is_fault = isinstance(error, OSError | NotImplementedError) or type(error).__module__.startswith(STORAGE_MODULES)
    if error is None or not is_fault or getattr(error, "filename", None):
        return None
    place = next((_address(found) for each in chain if (found := STORED_AT.search(str(each)))), "A file in data_root")
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, PermissionError):
        return (
            f"{place} is refused ({reason}): correct the key, which is in AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY or under `storage` in credentials.yml, or correct the bucket, or ask for access"
        )
    if isinstance(error, FileNotFoundError):
        return (
            f"{place} does not exist: check the bucket, and run the node that writes the file, or the whole pipeline."
        )
    if isinstance(error, NotImplementedError):
        return f"{place} cannot be written: choose another kind of store, such as s3://bucket/folder, or a folder."
    return f"{place} cannot be used: {reason}. Check that the server answers, then run the same command again."


def origin(error: BaseException) -> str:
    """Return the module that raised an error."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return str(frames[-1][0].f_globals.get("__name__", "")) if frames else ""


def _address(found: re.Match[str]) -> str:
    protocol = found["protocol"]
    return f"{protocol}://{found['path']}" if protocol and "://" not in found["path"] else found["path"]


def _interpolation(text: str) -> str:
    if found := re.search(r"Environment variable '(\w+)' not found", text):
        return f"the environment variable '{found[1]}' is not set: export it, or write ${{oc.env:{found[1]},default}}"
    if found := re.search(r"Unsupported interpolation type (\S+)", text):
        near = difflib.get_close_matches(found[1], RESOLVERS, n=1)
        hint = f"did you mean '${{{near[0]}:…}}'?" if near else f"choose one of {', '.join(RESOLVERS)}"
        return f"'${{{found[1]}:…}}' is unknown: {hint}"
    if found := re.search(r"Interpolation key '(.+)' not found", text):
        return f"'${{{found[1]}}}' refers to the key '{found[1]}', which the file does not have: add or correct it"
    if found := re.search(r"Globals key '(.+)' not found", text):
        return f"'${{globals:{found[1]}}}' refers to a key that conf/*/globals.yml does not have: add or correct it"
    if "incompatible container" in text:
        return "one environment gives a list where base has keys, or the reverse: give it the same form"
    return text


def _handled(error: BaseException) -> Iterator[BaseException]:
    """An error and those that were being handled when it was raised; OmegaConf hides them."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _listed(lines: list[str]) -> str:
    return "\n".join([f"{TITLE}:", *(f"  - {line}" for line in lines)])
