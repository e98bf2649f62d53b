"""One experiment a file, with the claims that it judges."""
