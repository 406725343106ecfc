"""The service proxy: every node translates Service addresses to endpoints, in tables of its kernel."""
