"""What a user asks of his own loads: how good is my map, where is the loss, which configuration, how many slots."""
