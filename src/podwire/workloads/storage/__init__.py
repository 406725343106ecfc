"""PersistentVolumes and their claims: binding, making, giving back."""
