"""What the pages share: the frame around them, and the widgets for figures, tables and images."""
