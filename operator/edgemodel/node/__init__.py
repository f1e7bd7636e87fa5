"""What runs beside the model on a node: fetches it, verifies it again, installs it."""
