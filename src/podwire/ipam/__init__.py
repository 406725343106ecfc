"""Address ranges as values: arithmetic, pools of addresses and ports. Pure; what is taken is told by the callers."""
