"""What a person looks at: accuracy, speed, size, memory, coverage."""
