"""The admin's panel."""
