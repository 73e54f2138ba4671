"""HTTP requests in; decisions, metrics and problem documents out."""
