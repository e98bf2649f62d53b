"""In-context linear regression: data, model, baselines."""
