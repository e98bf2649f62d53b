"""Experiments of icl_landscape, one file each: settings, analyse, draw, finding, and the claims each judges."""
