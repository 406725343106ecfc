"""Who may do what: RBAC, nodes, tokens, impersonation, the record of who did what. See README.md."""
