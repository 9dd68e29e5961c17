"""One module per real system, as ``benchmarks/real_systems.py`` runs it."""
