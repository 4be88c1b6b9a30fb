"""What a configuration will take: rows, steps, parameters, memory. Nothing is trained and no weight is read."""
