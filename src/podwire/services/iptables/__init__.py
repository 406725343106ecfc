"""The service proxy in the words of iptables: a chain for each Service port and each endpoint, as people know them from kube-proxy."""
