"""What the project measures and publishes: loads, studies, rows, tables and figures."""
