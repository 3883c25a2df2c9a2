"""What a server records, as it goes: balance, gap to a bound, moved replicas; for people and for Prometheus."""
