"""NextLabel's engine: which sample to label next, and which label to check next. Never imports streamlit."""
