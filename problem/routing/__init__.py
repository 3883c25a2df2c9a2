"""Which experts every token went to, and what follows from it exactly: loads, co-activation, copies over the network."""
