"""What a finished cycle says. Needs no torch."""
