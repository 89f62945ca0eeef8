"""What users draw: trajectory files and requests, camera moves by name."""
