"""What a decode step pays for: the experts whose weights its fullest GPU reads, and how the choice of replicas changes that."""
