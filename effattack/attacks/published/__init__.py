"""Published attacks, each with its paper's loss and hyper-parameters."""
