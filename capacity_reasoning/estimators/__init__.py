"""From losses and counts to bits: no run, no file."""
