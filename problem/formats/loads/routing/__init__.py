"""Routing of single tokens, as servers return it with a request, as loads of so many tokens each."""
