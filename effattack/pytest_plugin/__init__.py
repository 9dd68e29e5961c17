"""The pytest plugin; nothing here needs torch when pytest starts."""
