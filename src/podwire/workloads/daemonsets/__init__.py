"""DaemonSets: one Pod on each node that may run it."""
