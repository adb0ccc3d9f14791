"""The project's panel."""
