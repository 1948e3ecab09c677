"""What several runs say together, beside the published figures."""
