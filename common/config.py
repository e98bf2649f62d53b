"""Settings: a dataclass, over it YAML files from left to right, over them the flags of the command line."""

from common.process import EXIT_INTERRUPTED

import argparse
import dataclasses
import difflib
import errno
import functools
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import get_type_hints

import yaml

from common.limits import bare, kinds_of, refused, short, type_name, usual, words
from common.plain import from_yaml, to_yaml

EXIT_MISTAKE, EXIT_PIPE = 2, 141
IN_THE_WAY = "a file or folder stands in the way; move it or choose another place"
NO_RIGHTS = "no right to read or write there; choose another place or mend its rights"
GO_ON = "then call it again (a training run with --resume)"
STORAGE_ERRORS = {
    errno.ENOSPC: f"no space left; free some, {GO_ON}",
    errno.EDQUOT: f"disk quota used up; free some space, {GO_ON}",
    errno.EFBIG: f"file size limit reached; raise it, {GO_ON}",
    errno.ENAMETOOLONG: "that name is too long for the file system; choose a shorter one",
    errno.EROFS: "the file system is read-only; choose another folder",
    **dict.fromkeys((errno.EACCES, errno.EPERM), NO_RIGHTS),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST), IN_THE_WAY),
}


class UserError(Exception):
    """A mistake that the user can mend: what was found, what was expected, the command that mends it."""


def main(function, Config: type) -> None:
    """Run `function(config)` and leave with the exit code of `guarded`."""
    sys.exit(guarded(lambda: function(parse(Config))))


def guarded(function: Callable[[], int | None]) -> int:
    """Exit code of `function()` (None is 0): 2 for a mistake, told in a line, 130 if interrupted, 141 for a closed pipe."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        # A dash that the terminal's encoding lacks is no reason to end.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        _check_folder()
        code = function() or 0
        sys.stdout.flush()
        return code
    except UserError as error:
        message = error
    except BrokenPipeError:
        # Whoever read our output has seen enough, as `head` does; nothing more is written at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_PIPE
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        place = f"{error.filename}: " if error.filename else ""
        message = place + STORAGE_ERRORS[error.errno]
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    print(f"error: {message}", file=sys.stderr)
    return EXIT_MISTAKE


def _check_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError(
            "found no working directory: it was deleted; go to another one (cd) and call it again"
        ) from None


def parse(Config: type, argv: list[str] | None = None):
    """Config from its defaults, then every `--config` file from left to right, then the flags, wherever they stand.

    A bool flag may stand alone (`--resume`), a whole float is an integer, a single value a list of one, and a mapping sets the
    keys of its group. Every value is held against the limits declared with its field (common.limits) before any Config is
    made; a ValueError of a `__post_init__` counts as the user's mistake too.
    Raises UserError for an unknown key, a wrong type or value, and an unreadable file.
    """
    paths, flags = _split_files(sys.argv[1:] if argv is None else argv)
    known = _keys(Config)
    given, rest = {}, []
    for path in paths:
        given |= _leaves(file_values(path), known, f" in {path}")
    for key, text in _flags(flags, known):
        if key in ("help", "print_config") or key.endswith("+") and key[:-1] in known:
            rest.append(f"--{key}" if text is None else f"--{key}={text}")
        else:
            given |= _leaves({key: _value(text, key, known)}, known)
    parser = _parser(Config)
    try:
        plain = {key: _plain(key, value, known[key]) for key, value in given.items()}
        values = parser.parse_args(rest, namespace=parser.parse_object(_nested(plain)))
        _check(values, known)
        values = parser.instantiate(values)
        return Config(**{field.name: values[field.name] for field in dataclasses.fields(Config)})
    except (argparse.ArgumentError, ValueError, RecursionError) as error:
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


@functools.cache
def _parser(Config: type):
    """Made once for a Config: it takes longer than to parse."""
    from jsonargparse import ArgumentParser, set_dumper, set_loader, set_parsing_settings

    set_loader("yaml", from_yaml, exceptions=(yaml.YAMLError,))
    set_dumper("yaml", to_yaml)
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        description=(sys.modules[Config.__module__].__doc__ or "").split("\n\n")[0],
        usage="%(prog)s [--config FILE ...] [--key VALUE ...]",
        exit_on_error=False,
        formatter_class=_help_format(),
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


def _without_annotated(text: str) -> str:
    """The text with `Annotated[int, from 1 to 10]` as `int, from 1 to 10`."""
    before, found, rest = text.rpartition("Annotated[")
    if not found:
        return text
    depth, end = 1, 0
    while depth and end < len(rest):
        depth += {"[": 1, "]": -1}.get(rest[end], 0)
        end += 1
    return _without_annotated(before + rest[: end - 1] + rest[end:])


def _help_format() -> type:
    from jsonargparse import DefaultHelpFormatter

    class HelpFormatter(DefaultHelpFormatter):
        """Shows a type with its limits as `int, from 1 to 10`."""

        def _expand_help(self, action):
            return _without_annotated(super()._expand_help(action))

    return HelpFormatter


@functools.cache
def _keys(Config: type, prefix: str = "") -> dict[str, object]:
    """Every dotted key with its type, limits included; a nested dataclass is there too, as the key of its group."""
    keys = {}
    for name, kind in get_type_hints(Config, include_extras=True).items():
        keys[prefix + name] = kind
        if dataclasses.is_dataclass(kind):
            keys |= _keys(kind, f"{prefix}{name}.")
    return keys


def file_values(path: str | Path) -> dict:
    """Content of a YAML file, a mapping; raises UserError."""
    try:
        values = from_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"found no readable config file {path} ({getattr(error, 'strerror', 'not text')})") from None
    except yaml.YAMLError as error:
        raise UserError(f"found no valid YAML in {path}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"found {type(values).__name__} in {path}, expected a mapping of keys to values")
    return values


def _leaves(values: dict, known: dict, place: str = "", prefix: str = "") -> dict[str, object]:
    """Dotted keys that nested values set, with their values; raises UserError for an unknown one."""
    leaves = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if not dataclasses.is_dataclass(known.get(key)):
            _refuse_unknown(key, known, place)
            leaves[key] = value
        elif isinstance(value, dict):
            leaves |= _leaves(value, known, place, f"{key}.")
        else:
            raise UserError(f"{key}: found {value!r}, expected its keys (see --help)")
    return leaves


def _nested(leaves: dict) -> dict:
    """The mapping of mappings that sets dotted keys."""
    values = {}
    for key, value in leaves.items():
        *groups, name = key.split(".")
        place = values
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = value
    return values


def _refuse_unknown(key: str, known: dict, place: str = "") -> None:
    leaves = [key for key, kind in known.items() if not dataclasses.is_dataclass(kind)]
    if key not in leaves:
        near = difflib.get_close_matches(key, leaves, n=1, cutoff=0.0)[0]
        raise UserError(f"unknown key {key}{place}; did you mean {near}? (see --help)")


def _flags(words: list[str], known: dict) -> Iterable[tuple[str, str | None]]:
    """Key and text of every flag, `--key=text` or `--key text`; a bool that stands alone is true."""
    words = list(words)
    while words:
        key, equals, text = words.pop(0).partition("=")
        if not key.startswith("--"):
            raise UserError(f"found {key}, expected --key=value (see --help)")
        key = "help" if key == "-h" else key[2:]
        alone = (
            key in ("help", "print_config") or bare(known.get(key)) is bool and (not words or words[0].startswith("--"))
        )
        if equals or alone:
            yield key, text if equals else None
        elif words:
            yield key, words.pop(0)
        else:
            _refuse_unknown(key.removesuffix("+"), known)
            raise UserError(f"found --{key} without a value, expected --{key}={type_name(known[key])}")


def _value(text: str | None, key: str, known: dict):
    """Value of a flag's text: a text as it is where one is expected, else as YAML."""
    kinds = kinds_of(known.get(key))
    if text is None:
        return True
    if text in ("null", "None") and type(None) in kinds:
        return None
    if words(kinds):
        return text
    try:
        return from_yaml(text)
    except yaml.YAMLError:
        return text


def _plain(key: str, value, kind):
    try:
        return usual(value, kind)
    except (ValueError, yaml.YAMLError):
        raise UserError(f"{key}: found {short(value)}, expected {type_name(kind)} (see --help)") from None


def _check(values, known: dict) -> None:
    """Raises UserError for the first value that breaks a limit, or is null where that means nothing."""
    for key, kind in known.items():
        if not dataclasses.is_dataclass(kind) and (wrong := refused(values[key], kind)):
            value, kind = wrong
            raise UserError(f"{key}: found {short(value)}, expected {type_name(kind)} (see --help)")


def _explained(message: str, known: dict) -> UserError:
    """The parser's complaint in one line: the full key, the value found, the type expected."""
    key = re.search(r'key "([^"]+)"', message)
    found = re.search(r"(?:Got|Given) value: (.*)", message)
    if key and found and key[1] in known:
        return UserError(f"{key[1]}: found {short(found[1])}, expected {type_name(known[key[1]])} (see --help)")
    return UserError(" ".join(message.split()))
