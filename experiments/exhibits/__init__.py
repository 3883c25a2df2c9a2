"""What is drawn from published rows: tables, figures and the paper's numbers."""
