"""What a map costs on the network: copies of the tokens of a recorded routing, beside the balance of the same tokens."""
