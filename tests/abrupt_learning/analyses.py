"""What tests need to run any analysis by its name."""

import importlib
import json
import re
from pathlib import Path

HOMES = {"gpt": "gpt", "gpt_attention": "gpt", "control": "control", "mixture": "mixture", "components": "components"}
"""Run of a study that an analysis reads; main where it is not named."""


def settings_class(name: str):
    """(module, settings dataclass) of an analysis script, as it hands them to perform()."""
    module = importlib.import_module(f"abrupt_learning.analysis.{name}")
    text = Path(module.__file__).read_text()
    return module, getattr(module, re.search(rf'perform\("{name}", (\w+),', text).group(1))


def flags(values: dict) -> list[str]:
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]
