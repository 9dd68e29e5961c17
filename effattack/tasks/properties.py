"""The laws of a task, checked before anything runs: agreement and accuracy rest on them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Generator, Tensor

from effattack.errors import ContractError, UsageError, first_line
from effattack.tasks.base import Task

Law = Callable[[Task, Tensor], bool]


def itself(task: Task, outputs: Tensor) -> bool:
    """Every answer agrees with itself."""
    answers = task.answer(outputs)
    return bool(task.agree(answers, answers).all())


def both_ways(task: Task, outputs: Tensor) -> bool:
    """Two answers agree whichever is asked first, unless the task is not symmetric."""
    one, other = task.answer(outputs), task.answer(outputs.flip(0))
    return not task.symmetric or bool((task.agree(one, other) == task.agree(other, one)).all())


def right_agrees(task: Task, outputs: Tensor) -> bool:
    """An answer is right where it is the label, and a right one agrees with the label."""
    answers, labels = task.answer(outputs), task.answer(outputs.flip(0))
    agrees = task.agree(labels, answers) | ~task.right(answers, labels)
    return bool(task.right(answers, answers).all() and agrees.all())


def readable(task: Task, outputs: Tensor) -> bool:
    """Valid outputs are close to themselves, and have a text."""
    if not (task.valid(outputs).all() and task.close(outputs, outputs, 0.0).all()):
        return False
    return all(isinstance(task.text(answer), str | int) for answer in task.answer(outputs))


def row_by_row(task: Task, outputs: Tensor) -> bool:
    """An answer does not depend on the other rows."""
    answers = task.answer(outputs)
    alone = [task.answer(outputs[row : row + 1])[0] for row in range(len(outputs))]
    return [task.text(answer) for answer in answers] == [task.text(answer) for answer in alone]


LAWS: tuple[Law, ...] = itself, both_ways, right_agrees, readable, row_by_row


def check_task(task: Task) -> None:
    """Refuse a task that breaks one of its laws, on outputs of its own.

    Raises:
        ContractError: naming the task and the law.
    """
    name = type(task).__name__
    for seed in range(3):
        outputs = task.example(6, Generator().manual_seed(seed))
        try:
            task.check(task.answer(outputs), len(outputs))
        except UsageError as error:
            raise ContractError(
                f"the task {name} breaks a law: it refuses its own answers as labels "
                f"({first_line(error)})"
            ) from error
        for law in LAWS:
            if not law(task, outputs):
                raise ContractError(f"the task {name} breaks a law: {law.__doc__}")
