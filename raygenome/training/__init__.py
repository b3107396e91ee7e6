"""Training a net on a packed dataset, in this process or on Ray Train workers."""
