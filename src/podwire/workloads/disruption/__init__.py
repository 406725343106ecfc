"""PodDisruptionBudgets: how many Pods may go at the same time."""
