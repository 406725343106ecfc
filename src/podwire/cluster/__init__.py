"""The lab: one cluster on one Linux machine, from its specification to its last process."""
