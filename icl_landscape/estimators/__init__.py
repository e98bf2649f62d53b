"""Quantities of icl_landscape: pure functions from tensors to numbers."""
