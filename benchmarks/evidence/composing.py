"""Composes one conversation: stories told over many sittings, what resembles them, and chatter between."""

import random
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from benchmarks.evidence.baseline import words
from benchmarks.evidence.model import Conversation, Message, Question
from benchmarks.evidence.spelling import Spelling, spelling
from benchmarks.evidence.world import Asked, Thread, World, world
from benchmarks.evidence.writer import MARK, Said, Writer, month, tokens

_EPOCH = datetime(2025, 1, 6, 8, tzinfo=UTC)
_SITTING = 2_400  # tokens, on average
_FILLED = 0.75  # of which facts and what resembles them may take so much
_MONTH = re.compile(r"\$month_([a-z])")
_BEFORE = 0.9  # of the stories end before the last sitting
_RARE = 0.01  # of the messages
_WORLDS = {"mixed": ("mixed", "roman", "english", "urdu")}
_UNSETTLED = {"roman", "mixed"}  # spelled in many ways by the same person
_OWN = 3  # of four stories are in the conversation's own language


@dataclass
class _Sitting:
    at: datetime
    writer: Writer
    spelled: Spelling
    blocks: list[list[tuple[int, Said]]] = field(default_factory=list)  # with the number of the story, or -1

    def add(self, said: list[Said], thread: int = -1) -> int:
        self.blocks.append([(thread, one) for one in said])
        return sum(tokens(text) for _, text in said)


@dataclass(frozen=True)
class _Story:
    thread: Thread
    world: World
    bound: dict[str, str]


def compose(rng: random.Random, language: str, target: int) -> Conversation:
    """A conversation of about `target` tokens."""
    worlds = [world(name) for name in _WORLDS.get(language, (language,))]
    cast: dict[str, list[str]] = {}
    stories = [_story(rng, one, thread, cast) for one, thread in _chosen(rng, worlds, target)]
    longest = 600 if target < 20_000 else 1_900
    writers = {one.name: Writer(one, rng, cast, longest) for one in worlds}
    sittings = _sittings(rng, list(writers.values()), target)
    left = target
    for number, story in enumerate(stories):
        left -= _tell(rng, story, number, sittings, writers[story.world.name])
    left -= _distract(rng, stories, sittings, writers, int(target * _FILLED) - (target - left))
    _chat(rng, sittings, left)
    return _finished(rng, language, sittings, stories)


def _chosen(rng: random.Random, worlds: list[World], target: int) -> list[tuple[World, Thread]]:
    """So many stories that they fit: those of the first world first."""
    wanted = min(5 + target // 3_500, 40)
    first = rng.sample(worlds[0].threads, len(worlds[0].threads))
    others = [(one, thread) for one in worlds[1:] for thread in one.threads]
    own = first[:wanted] if not others else first[: wanted * _OWN // 4]
    rng.shuffle(others)
    named = {thread.name: (worlds[0], thread) for thread in own}
    for one, thread in others:
        if len(named) < min(wanted, 2 * len(own)):
            named.setdefault(thread.name, (one, thread))  # one person has no two knees
    return list(named.values())


def _story(rng: random.Random, one: World, thread: Thread, cast: dict[str, list[str]]) -> _Story:
    bound: dict[str, str] = {}
    for name, source in thread.draws.items():
        taken = cast.setdefault(source, [])
        free = [word for word in one.words[source] if word not in taken]
        bound[name] = rng.choice(free)
        taken.append(bound[name])
    return _Story(thread, one, bound)


def _sittings(rng: random.Random, writers: list[Writer], target: int) -> list[_Sitting]:
    made: list[_Sitting] = []
    at = _EPOCH + timedelta(days=rng.randint(0, 300), minutes=rng.randint(0, 700))
    for _ in range(max(5, round(target / _SITTING))):
        writer = rng.choice(writers)
        made.append(_Sitting(at, writer, spelling(writer.language, rng)))
        days = min(rng.lognormvariate(0.9, 1.0), 24)
        at = (at + timedelta(days=days)).replace(hour=rng.randint(7, 22), minute=rng.randint(0, 59))
        if at <= made[-1].at + timedelta(hours=3):
            at = made[-1].at + timedelta(hours=rng.randint(3, 9))
    return made


def _tell(rng: random.Random, story: _Story, number: int, sittings: list[_Sitting], writer: Writer) -> int:
    """Put the parts of a story into sittings in order, hardly ever into the last one."""
    parts = story.thread.sittings
    places = sorted(rng.sample(range(len(sittings) - (rng.random() < _BEFORE)), len(parts)))
    spent = 0
    for place, steps in zip(places, parts, strict=True):
        sitting = sittings[place]
        spelled = spelling(writer.language, rng)
        spent += sitting.add(writer.told(steps, story.bound, sitting.at, spelled), number)
    return spent


def _distract(
    rng: random.Random, stories: list[_Story], sittings: list[_Sitting], writers: dict[str, Writer], most: int
) -> int:
    """Scatter what resembles the stories, more of it in a longer conversation."""
    lures = [(story, text) for story in stories for text in story.thread.distractors]
    spent = 0
    for story, text in (lure for _ in range(12) for lure in rng.sample(lures, len(lures))):
        if spent > most * 0.4:
            break
        sitting = rng.choice(sittings)
        writer = writers[story.world.name]
        spent += sitting.add(writer.aside(text, sitting.at, spelling(writer.language, rng)))
    return spent


def _chat(rng: random.Random, sittings: list[_Sitting], left: int) -> None:
    while left > 0:
        sitting = rng.choice(sittings)
        left -= sitting.add(sitting.writer.exchange(sitting.at, sitting.spelled))


def _finished(
    rng: random.Random, language: str, sittings: list[_Sitting], stories: list[_Story]
) -> Conversation:
    messages: list[Message] = []
    evidence: dict[tuple[int, str], tuple[int, str]] = {}
    for sitting in sittings:
        rng.shuffle(sitting.blocks)
        if rng.random() < 0.6:
            sitting.blocks.insert(
                0, [(-1, said) for said in sitting.writer.greeting(sitting.at, sitting.spelled)]
            )
        at = sitting.at
        for thread, (role, text) in (one for block in sitting.blocks for one in block):
            for key, part in MARK.findall(text):
                evidence[thread, key] = (len(messages), part)
            messages.append(Message(role, MARK.sub(r"\2", text), at))
            at += timedelta(seconds=rng.randint(5, 40) if role == "user" else rng.randint(20, 240))
    questions = [
        Question(
            _asked(rng, asked, number, story, evidence, messages), asked.category, story.world.name, found
        )
        for number, story in enumerate(stories)
        for asked in story.thread.questions
        if (found := tuple(evidence[number, key] for key in asked.keys))
    ]
    rng.shuffle(questions)
    return Conversation(language, messages, questions, sum(tokens(message.text) for message in messages))


def _asked(
    rng: random.Random,
    asked: Asked,
    number: int,
    story: _Story,
    evidence: dict[tuple[int, str], tuple[int, str]],
    messages: list[Message],
) -> str:
    text = _MONTH.sub(
        lambda found: month(messages[evidence[number, found.group(1)][0]].at, story.world), asked.text
    )
    for name, value in sorted(story.bound.items(), key=lambda pair: -len(pair[0])):
        text = text.replace(f"${name}", value)
    return spelling(story.world.name, rng)(text) if story.world.name in _UNSETTLED else text


def shared(conversation: Conversation, question: Question) -> set[str]:
    """The rare words, of more than three letters, that a question and its evidence have in common."""
    seen = [set(words(message.text)) for message in conversation.messages]
    common = set(words(question.text)) & {word for _, part in question.evidence for word in words(part)}
    return {word for word in common if len(word) > 3 and sum(word in one for one in seen) < _RARE * len(seen)}
