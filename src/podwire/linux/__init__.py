"""The only folder that touches the kernel: namespaces, links, nftables, processes, the first process of a PID namespace.

Higher layers say what they want as values; here it is asked of the kernel, and a refusal comes back as a typed error.
"""
