"""What is predicted, and at what loss."""
