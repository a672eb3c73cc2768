"""What is inside a network: its parameter tree, its layers, and what they see."""
