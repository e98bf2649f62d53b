"""Stochastic-gradient Monte Carlo around a checkpoint: samplers, estimators of its degeneracy, and their health."""
