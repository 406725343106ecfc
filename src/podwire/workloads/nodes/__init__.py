"""The life cycle of nodes: which are heard of, and what becomes of the Pods of those that are not."""
