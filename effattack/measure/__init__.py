"""What is measured: executed MACs, latency, energy, and the statistics that compare them."""
