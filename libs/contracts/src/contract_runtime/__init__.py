"""What generated HTTP contracts are made of, written by hand: it belongs to no service."""
