"""Loss landscape degeneracy and the stages of in-context learning (Hoogland et al., 2402.02364)."""
