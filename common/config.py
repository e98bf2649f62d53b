"""Settings: a dataclass, over it YAML files from left to right, over them the flags of the command line."""

import argparse
import dataclasses
import difflib
import errno
import re
import sys
import types
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Literal, Union, get_args, get_origin, get_type_hints

import yaml

from common.plain import from_yaml, to_yaml

EXIT_MISTAKE, EXIT_INTERRUPTED = 2, 130
IN_THE_WAY = "a file or folder stands in the way; move it or choose another place"
NO_RIGHTS = "no right to write there; choose another folder or mend its rights"
STORAGE_ERRORS = {
    errno.ENOSPC: "no space left; free some, then go on with --resume",
    errno.EDQUOT: "disk quota used up; free some space, then go on with --resume",
    errno.EFBIG: "file size limit reached; raise it, then go on with --resume",
    errno.EROFS: "the file system is read-only; choose another folder",
    **dict.fromkeys((errno.EACCES, errno.EPERM), NO_RIGHTS),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST), IN_THE_WAY),
}


class UserError(Exception):
    """A mistake that the user can mend: what was found, what was expected, the command that mends it."""


def main(function, Config: type) -> None:
    """Run `function(config)` and leave with its exit code (None is 0), 2 for a user's mistake, 130 if interrupted."""
    try:
        sys.exit(function(parse(Config)))
    except UserError as error:
        message = error
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        place = f"{error.filename}: " if error.filename else ""
        message = place + STORAGE_ERRORS[error.errno]
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    print(f"error: {message}", file=sys.stderr)
    sys.exit(EXIT_MISTAKE)


def parse(Config: type, argv: list[str] | None = None):
    """Config from its defaults, then every `--config` file from left to right, then the flags, wherever they stand.

    A bool flag may stand alone (`--resume`). A ValueError of a `__post_init__` counts as the user's mistake.
    Raises UserError for an unknown key, a wrong type or value, and an unreadable file.
    """
    paths, flags = _split_files(sys.argv[1:] if argv is None else argv)
    known = _keys(Config)
    for path in paths:
        _refuse_unknown(_leaves(_file_values(path), known), known, f" in {path}")
    flags = [_whole_flag(flag, following, known) for flag, following in pairwise([*flags, "--"])]
    _refuse_unknown((flag[2:].split("=")[0].removesuffix("+") for flag in flags if flag.startswith("--")), known)
    parser = _parser(Config)
    try:
        values = parser.instantiate(parser.parse_args([*(f"--config={path}" for path in paths), *flags]))
        return Config(**{field.name: values[field.name] for field in dataclasses.fields(Config)})
    except (argparse.ArgumentError, ValueError) as error:
        raise _explained(str(error), known) from None


def load(Config: type, path: str | Path):
    """Config saved at `path`; raises UserError where it does not fit `Config`."""
    return parse(Config, [f"--config={path}"])


def dump(config) -> str:
    """YAML text of a config; `load` gives an equal config back."""
    return to_yaml(dataclasses.asdict(config))


def _split_files(argv: list[str]) -> tuple[list[str], list[str]]:
    """The `--config` files, and the other arguments."""
    files = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    files.add_argument("--config", action="append", default=[])
    try:
        found, flags = files.parse_known_args(argv)
    except argparse.ArgumentError:
        raise UserError("found --config without a file, expected --config FILE") from None
    return found.config, flags


def _parser(Config: type):
    from jsonargparse import ArgumentParser, set_dumper, set_loader, set_parsing_settings

    set_loader("yaml", from_yaml, exceptions=(yaml.YAMLError,))
    set_dumper("yaml", to_yaml)
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        description=(sys.modules[Config.__module__].__doc__ or "").split("\n\n")[0],
        usage="%(prog)s [--config FILE ...] [--key VALUE ...]",
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", metavar="FILE", help="A YAML file; the last one given wins.")
    parser.add_class_arguments(Config)
    groups = {key for key, kind in _keys(Config).items() if dataclasses.is_dataclass(kind)}
    for action in parser._actions:
        if action.dest in groups:
            # jsonargparse would also take a file for a single group: one way to give files is enough.
            action.help = argparse.SUPPRESS
    for key, group in parser.groups.items():
        if re.match(r"\w+\(", group.title):
            # The signature that `dataclass` puts where there is no docstring.
            group.title = key
    return parser


def _keys(Config: type, prefix: str = "") -> dict[str, object]:
    """Every dotted key with its type; a nested dataclass is there too, as the key of its group."""
    keys = {}
    for name, kind in get_type_hints(Config).items():
        keys[prefix + name] = kind
        if dataclasses.is_dataclass(kind):
            keys |= _keys(kind, f"{prefix}{name}.")
    return keys


def _file_values(path: str) -> dict:
    try:
        values = from_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"found no readable config file {path} ({getattr(error, 'strerror', 'not text')})") from None
    except yaml.YAMLError as error:
        raise UserError(f"found no valid YAML in {path}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"found {type(values).__name__} in {path}, expected a mapping of keys to values")
    return values


def _leaves(values: dict, known: dict, prefix: str = "") -> Iterable[str]:
    """Dotted keys that nested values set."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        if not dataclasses.is_dataclass(known.get(key)):
            yield key
        elif isinstance(value, dict):
            yield from _leaves(value, known, f"{key}.")
        else:
            raise UserError(f"{key}: found {value!r}, expected its keys (see --help)")


def _refuse_unknown(keys: Iterable[str], known: dict, place: str = "") -> None:
    leaves = [key for key, kind in known.items() if not dataclasses.is_dataclass(kind)]
    for key in keys:
        if key not in (*leaves, "help", "print_config"):
            near = difflib.get_close_matches(key, leaves, n=1, cutoff=0.0)[0]
            raise UserError(f"unknown key {key}{place}; did you mean {near}? (see --help)")


def _whole_flag(flag: str, following: str, known: dict) -> str:
    """`--resume` standing alone means `--resume=true`."""
    alone = flag.startswith("--") and following.startswith("--") and known.get(flag[2:]) is bool
    return f"{flag}=true" if alone else flag


def _explained(message: str, known: dict) -> UserError:
    """The parser's complaint in one line: the full key, the value found, the type expected."""
    key = re.search(r'key "([^"]+)"', message)
    found = re.search(r"(?:Got|Given) value: (.*)", message)
    if key and found and key[1] in known:
        return UserError(f"{key[1]}: found {found[1]}, expected {_type_name(known[key[1]])} (see --help)")
    return UserError(" ".join(message.split()))


def _type_name(kind) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_type_name(part) for part in get_args(kind))
    if kind is type(None):
        return "null"
    return str(kind) if get_origin(kind) else kind.__name__
