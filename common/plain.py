"""Plain values as text and as files: YAML for configs, JSON for results, written whole or not at all."""

import errno
import json
import math
import os
import re
from pathlib import Path

import yaml


class Loader(yaml.SafeLoader):
    """YAML as people write it in configs: 1e-3 is a float, 010 is ten, None is null, off and 2026-01-02 are words, and a key
    that stands twice is an error."""

    def compose_mapping_node(self, anchor):
        node, known = super().compose_mapping_node(anchor), set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in known and key.value != "<<":
                raise yaml.YAMLError(f"{key.value} stands twice, again in line {key.start_mark.line + 1}")
            known.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return node


class Dumper(yaml.SafeDumper):
    """Quotes the strings that Loader would take for something else."""


SCALARS = {
    "null": ("(~|null|Null|NULL|None|)$", ["~", "n", "N", ""]),
    "bool": ("(true|True|false|False)$", "tTfF"),
    "int": (r"[-+]?\d[\d_]*$", "-+0123456789"),
    "float": (
        r"([-+]?(\d[\d_]*\.[\d_]*|\.\d[\d_]*|\d+(?=[eE]))([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$",
        "-+.0123456789",
    ),
    "merge": ("<<$", "<"),
}
"""What a word without quotes may be, as in YAML 1.2, and the letters with which it begins."""

for _class in (Loader, Dumper):
    _class.yaml_implicit_resolvers = {}
    for _name, (_pattern, _first) in SCALARS.items():
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(_pattern), list(_first))
Loader.add_constructor(
    "tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node).replace("_", ""))
)


def from_yaml(text: str):
    """Values of a YAML text; raises yaml.YAMLError."""
    try:
        return yaml.load(text, Loader=Loader)
    except (ValueError, TypeError, RecursionError) as error:
        raise yaml.YAMLError(f"no such value: {error}") from None


def to_yaml(values) -> str:
    """YAML text of plain values, in their order."""
    return yaml.dump(values, Dumper=Dumper, sort_keys=False, width=math.inf)


def difference(old: dict, new: dict, prefix: str = "") -> tuple[str, object, object] | None:
    """First key, dotted, at which two nested mappings differ, with both values; None if they are equal."""
    for name in [*old, *(name for name in new if name not in old)]:
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            if deeper := difference(before, after, f"{prefix}{name}."):
                return deeper
        elif before != after:
            return f"{prefix}{name}", before, after
    return None


def plain(value):
    """`value` in JSON's terms: tensors and arrays as lists, NaN and infinities as null, floats in full precision."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_json(path: str | Path, kind: type, mend: str):
    """Content of a JSON file, a dict or a list as `kind` says; raises UserError, which ends in `mend`, for anything else."""
    from common.config import UserError

    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"found no readable {path} ({error.strerror}), expected a JSON file; {mend}") from None
    except (ValueError, RecursionError):
        raise UserError(f"found no valid JSON in {path}, expected a {kind.__name__}; {mend}") from None
    if not isinstance(value, kind):
        raise UserError(f"found {type(value).__name__} in {path}, expected a {kind.__name__}; {mend}")
    return value


def write_json(path: str | Path, value) -> None:
    """Write `value`, made plain, as indented JSON."""
    write_atomic(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, sees the old content or the new and nothing between."""
    path = Path(path)
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder and those above it; raises PermissionError also where the system only says that it is not there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise PermissionError(errno.EACCES, "no folder can be made", str(path)) from error


def steps(values, separator: str = "/") -> str:
    """Steps of the seeds as text, None and infinity as never: 600/725/never."""
    return separator.join("never" if v is None or v == math.inf else f"{v:.0f}" for v in values)
