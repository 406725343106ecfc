"""The VPC network: routes, forwarding rules, Cloud NAT."""
