"""What computes: one cycle after the other."""
