"""How to look: from the clean inputs to the best ones found."""
