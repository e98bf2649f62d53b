"""One experiment each, with a config of the same name."""
