"""Pure functions from tensors to numbers; they know no run and no file."""
