"""Pure joins of Kubernetes objects that several parts of the system read: frontends, topology, identities."""
