"""The laws of a task, checked before anything runs: agreement and accuracy rest on them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Generator, Tensor

from effattack.domains.properties import hold
from effattack.errors import ContractError, UsageError, first_line
from effattack.tasks.base import Task

Law = Callable[[Task, Tensor], bool]


def itself(task: Task, outputs: Tensor) -> bool:
    """agree(a, a) is true."""
    answers = task.answer(outputs)
    return bool(task.agree(answers, answers).all())


def both_ways(task: Task, outputs: Tensor) -> bool:
    """agree(a, b) is agree(b, a), unless the task is not symmetric."""
    one, other = task.answer(outputs), task.answer(outputs.flip(0))
    return not task.symmetric or bool((task.agree(one, other) == task.agree(other, one)).all())


def right_agrees(task: Task, outputs: Tensor) -> bool:
    """right(a, a) is true, and right(a, b) implies agree(b, a)."""
    answers, labels = task.answer(outputs), task.answer(outputs.flip(0))
    agrees = task.agree(labels, answers) | ~task.right(answers, labels)
    return bool(task.right(answers, answers).all() and agrees.all())


def readable(task: Task, outputs: Tensor) -> bool:
    """valid(x) and close(x, x) are true of example(), and text(answer) is a text or a number."""
    if not (task.valid(outputs).all() and task.close(outputs, outputs, 0.0).all()):
        return False
    return all(isinstance(task.text(answer), str | int) for answer in task.answer(outputs))


def row_by_row(task: Task, outputs: Tensor) -> bool:
    """answer(x) of a row does not depend on the other rows."""
    answers = task.answer(outputs)
    alone = [task.answer(outputs[row : row + 1])[0] for row in range(len(outputs))]
    return [task.text(answer) for answer in answers] == [task.text(answer) for answer in alone]


LAWS: tuple[Law, ...] = itself, both_ways, right_agrees, readable, row_by_row


def check_task(task: Task) -> None:
    """Refuse a task that breaks one of its laws, on outputs of its own.

    Raises:
        ContractError: naming the task and the law.
    """
    for seed in range(3):
        outputs = task.example(6, Generator().manual_seed(seed))
        try:
            task.check(task.answer(outputs), len(outputs))
        except UsageError as error:
            found = f"check(labels) takes its own answers ({first_line(error)})"
            raise _broken(task, found) from error
        hold(LAWS, task, outputs, _broken)


def _broken(task: Task, law: str) -> ContractError:
    name = type(task).__name__
    return ContractError(
        f"{name} breaks a law of tasks: {law.rstrip('.')}: correct the class, or no agreement "
        "would mean anything"
    )
