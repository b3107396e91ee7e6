"""Being connected to Ray: an existing cluster or a private one, for scoring and training."""
