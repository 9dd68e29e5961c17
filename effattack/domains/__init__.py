"""What inputs are: how they are checked, rounded, compared, told apart and stored."""
