"""What is kept of a run, and what decides it. Needs no torch."""
