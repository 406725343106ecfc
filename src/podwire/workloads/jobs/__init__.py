"""Jobs: so many Pods that end well."""
