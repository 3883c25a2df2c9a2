"""The balancers of others: the published search's programs and the policies of serving systems."""
