"""Lower bounds on what a victim keeps: no attack inside the threat ends below them."""
