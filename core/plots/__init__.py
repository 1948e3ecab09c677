"""DataFrame → plotly Figure, pure."""
