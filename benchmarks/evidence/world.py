"""A world: the words, the chatter, the documents and the stories of one language, read from `worlds/NAME.txt`.

A line that begins with `@` opens a section: `@words`, `@pool NAME`, `@topic NAME`, `@doc NAME`, `@thread NAME`.
In a topic `>` is what a user may say and `<` what the assistant may say. In a thread they are messages in order,
`---` ends a sitting, `> [doc] text` is a pasted document with that text in its middle, `~` is a message that
resembles the story but has nothing to do with it, `let` draws its names, `?` is a question:
`? category | text | keys`. `«a:…»` is the evidence with the key `a`. In every text `$name` is a word of the list
`name` (`$name2` another one) and `(a|b)` is one of its parts.
"""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "worlds"


@dataclass
class Topic:
    """What is said when the talk is about one thing."""

    user: list[str] = field(default_factory=list)
    assistant: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """One message of a story."""

    role: str
    text: str
    document: str = ""  # the kind of document in which the text stands


@dataclass(frozen=True)
class Asked:
    """A question of a story and the keys of its evidence."""

    category: str
    text: str
    keys: tuple[str, ...]


@dataclass
class Thread:
    """A story: what is told in one sitting after the other, what resembles it, what is asked about it."""

    name: str
    draws: dict[str, str] = field(default_factory=dict)  # a variable and the list that it is drawn from
    sittings: list[list[Step]] = field(default_factory=lambda: [[]])
    distractors: list[str] = field(default_factory=list)
    questions: list[Asked] = field(default_factory=list)


@dataclass
class World:
    """Everything of one language."""

    name: str
    words: dict[str, list[str]] = field(default_factory=dict)
    pools: dict[str, list[str]] = field(default_factory=dict)
    topics: dict[str, Topic] = field(default_factory=dict)
    documents: dict[str, list[str]] = field(default_factory=dict)
    threads: list[Thread] = field(default_factory=list)


@cache
def world(name: str) -> World:
    """The world `name`. Raises ValueError at a line that it does not understand."""
    made = World(name)
    kind = title = ""
    for line in (_FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("@"):
            kind, _, title = line[1:].partition(" ")
            if kind == "thread":
                made.threads.append(Thread(title))
            continue
        _read(made, kind, title, line)
    return made


def _read(made: World, kind: str, title: str, line: str) -> None:
    match kind:
        case "words":
            name, _, words = line.partition(" = ")
            made.words.setdefault(name, []).extend(word.strip() for word in words.split(" | "))
        case "pool":
            made.pools.setdefault(title, []).append(line)
        case "doc":
            made.documents.setdefault(title, []).append(line)
        case "topic":
            topic = made.topics.setdefault(title, Topic())
            (topic.user if line.startswith("> ") else topic.assistant).append(line[2:])
        case "thread":
            _tell(made.threads[-1], line)
        case _:
            raise ValueError(f"a line outside every section: {line}")


def _tell(thread: Thread, line: str) -> None:
    mark, _, rest = line.partition(" ")
    match mark:
        case "let":
            pairs = (pair.split("=") for pair in rest.split(","))
            thread.draws.update((name.strip(), source.strip()) for name, source in pairs)
        case ">" | "<":
            document = ""
            if rest.startswith("["):
                document, _, rest = rest[1:].partition("] ")
            thread.sittings[-1].append(Step("user" if mark == ">" else "assistant", rest, document))
        case "---":
            thread.sittings.append([])
        case "~":
            thread.distractors.append(rest)
        case "?":
            category, text, keys = (part.strip() for part in rest.split(" | "))
            thread.questions.append(Asked(category, text, tuple(keys.split())))
        case _:
            raise ValueError(f"not a line of a thread: {line}")
