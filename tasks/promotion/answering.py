"""Answering without a form: which version waits, and what becomes of it and of the run that waits in Prefect."""

from tasks.core.errors import UserError
from tasks.promotion.approval import ANSWERED, Answer, Question, answer_of, overdue, question_of
from tasks.promotion.concluding import heed
from tasks.promotion.registered_version import FIELD, RegisteredVersion
from tasks.promotion.registry import ModelRegistry


def waiting_version(registry: ModelRegistry, number: str) -> tuple[RegisteredVersion, Question]:
    """The version that waits for an answer, with its question. Raises UserError when there is none, or when `number`
    is empty and there are several."""
    found = {one.number: (one, question) for one in registry.versions() if (question := question_of(one))}
    if number in found:
        return found[number]
    there = ", ".join(found)
    if number or not found:
        raise UserError(
            f"version {number} of {registry.name} does not wait for approval"
            if number
            else f"no version of {registry.name} waits for approval",
            field="version" if number else FIELD,
            mend=f"there wait: {there}" if found else "`retrain` asks with promotion.approval.ask",
        )
    if len(found) > 1:
        raise UserError(
            f"several versions wait: {there}", field="version", mend=f"--version={max(found, key=int)}"
        )
    return next(iter(found.values()))


def give_answer(
    registry: ModelRegistry, version: RegisteredVersion, question: Question, answer: Answer
) -> RegisteredVersion:
    """Record an answer and let the aliases follow; returns the version as it is then.

    An answer that was given before stays, and so does silence until the time was over. Raises UserError when the
    champion is no longer the one that the candidate was compared with.
    """
    version = registry.again(version)
    if question_of(version) is None:  # it was answered since it was looked at
        return version
    standing = answer_of(version, question) or overdue(question)
    registry.tag(version, ANSWERED, (standing or answer).model_dump_json())
    version = heed(registry, version, standing or answer)
    if not registry.settle(version):
        raise UserError(
            f"the champion is no longer the one that version {version.number} was compared with",
            field="version",
            mend="the next `retrain` compares it with the present champion and asks again",
        )
    return version
