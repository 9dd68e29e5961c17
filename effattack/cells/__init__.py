"""What one unit of work is, how it is performed, and where it is stored."""
