"""ReplicaSets: so many Pods of a template."""
