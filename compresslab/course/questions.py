"""`answer`: multiple-choice questions whose wrong options are named misconceptions.

    q1 = answer("1.q1", q1)

The options are shuffled, the same for everyone. Each wrong one has its own reply. The first answer is
what counts; after it, trying the others is the best way to learn.
"""

from __future__ import annotations

from typing import Any

from compresslab.course import mode, progress
from compresslab.course.chapters import find_question
from compresslab.course.trial import ToDo, Wrong


def answer(id: str, letter: Any) -> Any:
    """Give an answer to a question.

    Args:
        id: the question, "1.q1".
        letter: "a", "b", ... as the notebook shows them; `...` while it is still to do.
    Returns:
        the letter.
    Raises:
        Wrong: the option is wrong; the message is its own reply.
        ValueError: there is no such option.
        ToDo: still to do, in strict mode or under nbgrader.
    """
    question = find_question(id)
    if letter is ...:
        if mode.strict():
            raise ToDo(f"Question {id} is still to do.")
        print(f"\N{WHITE CIRCLE} Question {id} is still to do.")
        return letter
    chosen = letter.strip().lower() if isinstance(letter, str) else letter
    if chosen not in question.shuffled:
        raise ValueError(f"question {id} has the options {', '.join(question.shuffled)}; got {letter!r}")
    option = question.shuffled[chosen]
    first = id not in first_answers()
    progress.record("answer", id, option=option.key, correct=option.correct)
    if not option.correct:
        raise Wrong(f"Question {id}: {option.reply}")
    note = "" if first else " (your first answer stays on record)"
    print(f"\N{CHECK MARK} Question {id}{note}: {option.reply}")
    return chosen


def first_answers() -> dict[str, bool]:
    """{question id: whether the first answer was right}."""
    result: dict[str, bool] = {}
    for event in progress.events("answer"):
        result.setdefault(event["id"], bool(event.get("correct")))
    return result
