"""Dialogues, as transcripts or plain questions: a reply is free text, scored by its likeness to the one in the data."""

import re
from collections.abc import Sequence

from rapidfuzz.distance import LCSseq

from tasks.core.examples import Example, content_id, make_example
from tasks.core.generators.base import Message
from tasks.filter.rouge import f1, tokenise
from tasks.problems.base import Draft, Score
from tasks.problems.labelled_lines import LabelledLines

_SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


def is_transcript(text: str) -> bool:
    """Whether `text` is a dialogue in the form of the HH data: paragraphs that open `Human:` and `Assistant:`."""
    opens = text.lstrip().startswith("Human:")
    return opens and (text.startswith("\n\n") or "\n\nAssistant:" in text)


def read_turns(text: str) -> list[Message]:
    """The messages of a transcript; text that is none is one user turn, as it stands.

    White space around a turn goes, and paragraphs in a row of one speaker are one turn. A transcript that breaks off
    after `Assistant:` ends with an empty assistant turn.
    """
    if not is_transcript(text):
        return [{"role": "user", "content": text}]
    turns: list[Message] = []
    _, *parts = _SPEAKER.split(text)
    for speaker, words in zip(parts[::2], map(str.strip, parts[1::2]), strict=True):
        if turns and turns[-1]["role"] == _ROLES[speaker]:
            turns[-1]["content"] = "\n\n".join(filter(None, (turns[-1]["content"], words)))
        elif speaker == "Human":
            turns.append({"role": "user", "content": words})
        else:
            turns.append({"role": "assistant", "content": words})
    return turns


def write_turns(turns: Sequence[Message]) -> str:
    """The transcript of user and assistant turns; `read_turns` of it gives them back."""
    speakers = {role: speaker for speaker, role in _ROLES.items()}
    return "".join(f"\n\n{speakers[turn['role']]}: {turn['content']}" for turn in turns)


class Dialogue(LabelledLines):
    """The input is a question, or a transcript that ends with the user's words; the target is the reply.

    Likeness to one reply is no measure of quality: it stands beside a learned reward, which a policy can please
    without getting any better.
    """

    max_new_tokens = 128

    def adapt(self, example: Example) -> Example:
        """Of a target that is a transcript only the last reply is kept. Where the input (that transcript, or one with
        another reply) ends with a reply too, that one is taken, and the input ends before it."""
        turns, target = read_turns(example.input), example.target
        answered = turns[-1]["role"] == "assistant" and bool(turns[-1]["content"])
        if is_transcript(target):
            reply = turns[-1] if answered else read_turns(target)[-1]
            target = reply["content"] if reply["role"] == "assistant" else ""
        elif answered:
            return example  # two replies: which one is meant, nobody knows
        if turns[-1]["role"] == "assistant":
            turns = turns[:-1]
        text = write_turns(turns) if is_transcript(example.input) else example.input
        changes = {"input": text, "target": target, "id": content_id(text, target, example.choices)}
        return example.model_copy(update=changes)

    def prompt(self, example: Example) -> list[Message]:
        """The turns, after the instruction if there is one."""
        turns = read_turns(example.input)
        system = self.config.instruction or self.instruction
        return [{"role": "system", "content": system}, *turns] if system else turns

    def score(self, example: Example, completion: str) -> Score:
        """ROUGE-L F1 against the reply in the data; where either has no letter or digit, equality."""
        answer, target = tokenise(completion), tokenise(example.target)
        if answer and target:
            common = LCSseq.similarity(answer, target)
            value = f1(common, len(answer), len(target)) if common else 0.0
        else:
            value = float(bool(completion.strip()) and completion.strip() == example.target.strip())
        return Score(value=value, answer=completion.strip() or None)

    def fault(self, example: Example) -> str | None:
        """An empty input or reply, or a dialogue that does not end with words of the user."""
        last = read_turns(example.input)[-1]
        if example.input.strip() and (last["role"] != "user" or not last["content"].strip()):
            return "the dialogue does not end with words of the user"
        return "the reply is empty" if not example.target.strip() else super().fault(example)

    def show(self, example: Example) -> str:
        """`Question:` and `Answer:` lines; the blank line that opens a transcript is left out."""
        return super().show(example.model_copy(update={"input": example.input.lstrip()}))

    def draft(self, row: dict[str, str], parent: Example) -> Draft:
        """A question that opens `Human:` is a transcript; its leading blank line was lost on the way."""
        question = row["question"]
        return Draft(
            input=f"\n\n{question}" if question.startswith("Human:") else question, target=row["answer"]
        )

    def worked(self, parent: Example) -> tuple[Example, list[Example]]:
        """Everyday questions, as transcripts if the parent is one."""
        opening = "Human: " if is_transcript(parent.input) else ""
        example, *written = [make_example(opening + question, reply) for question, reply in _WORKED]
        return example, written


_ROLES = {"Human": "user", "Assistant": "assistant"}
_WORKED = [
    (
        "My tomato seedlings are tall and thin. What am I doing wrong?",
        "They lack light. Move them to a brighter window, and keep them a little cooler.",
    ),
    (
        "How do I get candle wax out of a tablecloth?",
        "Let it harden, scrape off what you can, then iron the rest into a sheet of paper laid on top.",
    ),
    (
        "I have two hours in a strange town. What should I look at?",
        "Walk to the market square first: you see the oldest houses on the way, and can eat something there.",
    ),
]
