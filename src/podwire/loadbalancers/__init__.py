"""Load balancers for Services: from a Service of type LoadBalancer to the cloud's resources."""
