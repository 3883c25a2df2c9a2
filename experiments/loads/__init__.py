"""The loads that are measured on: shipped traces, synthetic families, the recorded small model."""
