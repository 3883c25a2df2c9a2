"""Which experts every token went to, as files hold it: one module per format, and the one way from there to a trace."""
