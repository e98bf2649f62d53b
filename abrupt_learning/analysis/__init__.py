"""One experiment per file: each reads a run folder, writes results/<name>.json and figures/<name>.png, prints its finding."""
