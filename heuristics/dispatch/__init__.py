"""Which replica of an expert a token is sent to: the rules of dispatchers, and the best choice for what decoding pays."""
