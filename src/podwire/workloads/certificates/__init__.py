"""Certificates for who asks the API for one, signed by the cluster's authority."""
