"""Horizon's package of local settings."""
