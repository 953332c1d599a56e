"""Save, load and report."""
