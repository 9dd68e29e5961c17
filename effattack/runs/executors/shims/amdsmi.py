"""Takes the place of amdsmi for Ray's processes, where the installed one cannot be imported."""

raise ImportError("amdsmi is installed, but AMD's library that it needs is not")
