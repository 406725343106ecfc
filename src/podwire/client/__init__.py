"""One client for any Kubernetes API server: requests, informers, Events, leader election.

What belongs here: what the public Kubernetes API offers to anybody with a kubeconfig. What must not: any knowledge of which API server
answers, and any decision about objects.
"""
