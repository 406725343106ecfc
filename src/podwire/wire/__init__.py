"""Codecs between bytes and values, without sockets: netlink and its families, DNS."""
