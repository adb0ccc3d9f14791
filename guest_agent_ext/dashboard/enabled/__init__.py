"""What Horizon is told: these files are copied to its own."""
