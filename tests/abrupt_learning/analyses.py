"""Which run of a study each analysis reads."""

HOMES = {"gpt": "gpt", "gpt_attention": "gpt", "control": "control", "mixture": "mixture", "components": "components"}
"""Main where it is not named."""
