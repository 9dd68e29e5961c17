"""What a victim is asked for: how answers are read, compared with each other, and with labels."""

from __future__ import annotations

from effattack.tasks.base import Task
from effattack.tasks.boxes import Boxes
from effattack.tasks.classes import Classes
from effattack.tasks.conclusion import Conclusion
from effattack.tasks.matches import Matches
from effattack.tasks.properties import check_task
from effattack.tasks.tags import Tags
from effattack.tasks.text import Text

__all__ = ["Boxes", "Classes", "Conclusion", "Matches", "Tags", "Task", "Text", "check_task"]
