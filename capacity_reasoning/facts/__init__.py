"""People, their facts, and questions about them: lists, tables, splits, tokens."""
