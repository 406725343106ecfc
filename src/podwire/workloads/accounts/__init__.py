"""Service accounts: one in each namespace, a token for each."""
