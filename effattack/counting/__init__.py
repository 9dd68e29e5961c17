"""What is executed: MACs by dispatch, elementwise work, modelled joules; knows no victim."""
