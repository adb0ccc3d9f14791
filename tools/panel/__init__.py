"""Horizon with the panel, for the stack and for tests."""
