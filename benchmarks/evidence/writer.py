"""Turns templates into sentences, exchanges and documents."""

import random
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache

from baatcheet.context.counting import count
from benchmarks.evidence.spelling import Spelling
from benchmarks.evidence.world import Step, World

LEAST, MOST = 10, 2_000  # tokens of a message
PEOPLE = ("women", "men")
MARK = re.compile(r"«([a-z]):\s*([^»]*)»")  # evidence
_CHOICE = re.compile(r"\(([^()|]*(?:\|[^()|]*)+)\)")
_SLOT = re.compile(r"\$([a-z]+)(\d*)")
_LONG_REPLY = 0.13
_CLAUSE = re.compile("[.,;:!?…\u06d4\u060c\u061f\u0964]\\s*")  # Urdu's and Hindi's marks, too
_RAMBLING = 0.05
_DOCUMENT = 0.035

Said = tuple[str, str]  # a role and a text
tokens = lru_cache(maxsize=100_000)(count)


class Writer:
    """Writes what is said in one conversation in one world."""

    def __init__(self, world: World, rng: random.Random, cast: Mapping[str, list[str]], longest: int) -> None:
        self._world = world
        self._rng = rng
        self._cast = cast  # who plays a part in the stories, by list
        self._longest = longest  # tokens of a document
        self._unused: dict[int, list[str]] = {}

    @property
    def language(self) -> str:
        return self._world.name

    def text(self, template: str, bound: dict[str, str], at: datetime, *, stranger: bool = False) -> str:
        """`template` filled. New draws are added to `bound`; a `stranger` is nobody of the stories."""
        while "|" in template and _CHOICE.search(template):
            template = _CHOICE.sub(lambda found: self._rng.choice(found.group(1).split("|")), template)
        while _SLOT.search(template):
            template = _SLOT.sub(lambda found: self._slot(found, bound, at, stranger=stranger), template)
        return template.replace("\\n", "\n")

    def exchange(self, at: datetime, spelled: Spelling) -> list[Said]:
        """A turn or two of chatter about one thing."""
        rng, bound = self._rng, dict[str, str]()
        if self._world.documents and rng.random() < _DOCUMENT:
            kind = rng.choice(sorted(self._world.documents))
            text = self.document(kind, "", at, bound)
            return [("user", text), self._heard(text, at, spelled)]
        topic, said = self._topic(), list[Said]()
        for _ in range(rng.choice((1, 1, 1, 2))):
            said += self._turn(self._remark(topic, bound, at), topic, bound, at, spelled)
        return said

    def aside(self, template: str, at: datetime, spelled: Spelling) -> list[Said]:
        """Something that only resembles a story, and an answer."""
        bound: dict[str, str] = {}
        text = self.text(template, bound, at, stranger=True)
        if self._rng.random() < 0.4:
            text = f"{self._pool('open', bound, at)} {text}"
        return [self._said("user", text, at, spelled), self._heard(text, at, spelled)]

    def greeting(self, at: datetime, spelled: Spelling) -> list[Said]:
        bound: dict[str, str] = {}
        user = f"{self._pool('hi', bound, at)} {self._pool('tail', bound, at)}"
        hello = self._pool("hello", bound, at)
        return [self._said("user", user, at, spelled), self._said("assistant", hello, at, spelled)]

    def told(
        self, steps: Sequence[Step], bound: dict[str, str], at: datetime, spelled: Spelling
    ) -> list[Said]:
        """One sitting's part of a story."""
        said: list[Said] = []
        for step in steps:
            text = self.text(step.text, bound, at)
            if step.document:
                said.append(("user", self.document(step.document, text, at, dict(bound))))
                continue
            if not said and self._rng.random() < 0.3:
                text = f"{self._pool('open', {}, at)} {text}"
            said.append(self._said(step.role, text, at, spelled))
        if steps[-1].role == "user":
            said.append(self._heard(said[-1][1], at, spelled))
        return said

    def document(self, kind: str, inside: str, at: datetime, bound: dict[str, str]) -> str:
        """A pasted document; its first template is its head, and `inside` stands in its middle."""
        head, *templates = self._world.documents[kind]
        unused: list[str] = []
        wanted = min(int(self._rng.lognormvariate(6.2, 0.7)), self._longest)
        lines: list[str] = []
        size = tokens(inside)
        while size < wanted:
            unused = unused or self._rng.sample(templates, len(templates))
            line = self.text(unused.pop(), {}, at, stranger=True)
            lines.append(line)
            size += tokens(line) + 1
        if inside:
            lines.insert(int(len(lines) * self._rng.uniform(0.25, 0.8)), inside)
        while tokens("\n".join(lines)) > MOST - 100:
            lines.pop(0 if lines[0] != inside else -1)
        return f"{self.text(head, bound, at, stranger=True)}\n" + "\n".join(lines)

    def _turn(
        self, user: str, topic: str, bound: dict[str, str], at: datetime, spelled: Spelling
    ) -> list[Said]:
        reply = self._reply(topic, bound, at)
        return [self._said("user", user, at, spelled), self._said("assistant", reply, at, spelled)]

    def _heard(self, text: str, at: datetime, spelled: Spelling) -> Said:
        """An answer that fits anything, often with the user's own words in it."""
        rng = self._rng
        parts = [self._pool("ack", {}, at), self._pool("ask", {}, at)]
        facts = [fact for _, fact in MARK.findall(text)]
        clauses = [clause.strip() for clause in _CLAUSE.split(MARK.sub(r"\2", text).splitlines()[0])]
        quotes = [
            clause
            for clause in clauses
            if 3 <= len(clause.split()) <= 8 and not any(fact in clause or clause == fact for fact in facts)
        ]
        if quotes and len(clauses) > 1 and rng.random() < 0.7:
            parts.insert(1, self._pool("echo", {"quote": rng.choice(quotes)}, at))
        return self._said("assistant", " ".join(parts), at, spelled)

    def _said(self, role: str, text: str, at: datetime, spelled: Spelling) -> Said:
        text = spelled(text) if role == "user" else text
        while tokens(MARK.sub(r"\2", text)) < LEAST:
            if role == "user":
                text = f"{text} {spelled(self._pool('tail', {}, at))}"
            else:
                text = f"{self._pool('ack', {}, at)} {text}"
        return role, text

    def _topic(self) -> str:
        return self._rng.choice(sorted(self._world.topics))

    def _remark(self, topic: str, bound: dict[str, str], at: datetime) -> str:
        remarks = self._world.topics[topic].user
        parts = [self.text(self._fresh(remarks), bound, at)]
        while self._rng.random() < 0.5:
            parts.append(self.text(self._fresh(remarks), bound, at))
        if self._rng.random() < _RAMBLING:  # a long message about everything, each part by itself
            parts += [self.text(self._fresh(remarks), {}, at) for _ in range(self._rng.randint(8, 22))]
        if self._rng.random() < 0.3:
            parts.insert(0, self._pool("open", bound, at))
        if self._rng.random() < 0.4:
            parts.append(self._pool("tail", bound, at))
        return " ".join(parts)

    def _reply(self, topic: str, bound: dict[str, str], at: datetime) -> str:
        advice = self._world.topics[topic].assistant
        if self._rng.random() < _LONG_REPLY:
            points = self._rng.sample(advice, min(len(advice), self._rng.randint(6, 14)))
            body = "\n".join(f"- {self.text(point, bound, at)}" for point in points)
            return f"{self._pool('ack', bound, at)}\n\n{body}\n\n{self._pool('ask', bound, at)}"
        sentences = self._rng.choice((1, 2, 3, 3, 4, 5, 6, 8))
        parts = [self.text(self._fresh(advice), bound, at) for _ in range(sentences)]
        if self._rng.random() < 0.6:
            parts.insert(0, self._pool("ack", bound, at))
        if self._rng.random() < 0.5:
            parts.append(self._pool("ask", bound, at))
        return " ".join(parts)

    def _pool(self, name: str, bound: dict[str, str], at: datetime) -> str:
        return self.text(self._fresh(self._world.pools[name]), bound, at)

    def _fresh(self, templates: list[str]) -> str:
        """One of `templates`: each comes once before any comes again."""
        unused = self._unused.get(id(templates))
        if not unused:
            unused = self._unused[id(templates)] = self._rng.sample(templates, len(templates))
        return unused.pop()

    def _slot(self, found: re.Match[str], bound: dict[str, str], at: datetime, *, stranger: bool) -> str:
        name, number = found.groups()
        key = name + number
        if key in bound:
            return bound[key]
        if name in {"in", "ago"}:
            days = int(number) if name == "in" else -int(number)
            return dated(at + timedelta(days=days), self._world)
        if name == "num":
            most = int(number)
            return bound.setdefault(key, str(self._rng.randint(max(2, most // 4), most)))
        words = self._world.words[name]
        cast = self._cast.get(name, ())
        if name in PEOPLE and cast and not stranger and self._rng.random() < 0.5:
            words = list(cast)
        taken = {*bound.values(), *(cast if stranger else ())}
        return bound.setdefault(key, self._rng.choice([word for word in words if word not in taken] or words))


def dated(day: datetime, world: World) -> str:
    """A date as people write it."""
    return f"{day.day} {month(day, world)}"


def month(day: datetime, world: World) -> str:
    return world.words["months"][day.month - 1]
