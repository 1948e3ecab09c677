"""What leaves and enters as a file."""
