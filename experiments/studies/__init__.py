"""One file a question: the cells that measure it and the table that answers it."""
