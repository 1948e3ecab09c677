"""Architectures, and images on their way to them."""
