"""A second look at what was ranked, once its texts are there: facts before pleasantries and questions.

What stands beside a hit was ranked without being seen. And where the assistant mostly asks and encourages, what is to
be remembered is mostly what the user said.
"""

from collections.abc import Iterable, Mapping, Sequence

from baatcheet.context.recall import signs
from baatcheet.context.recall.choosing import Found, Place
from baatcheet.context.recall.query import Query
from baatcheet.context.recall.ranking import Scored

DULL = 0.65  # for a passage that says nothing, or asks
TELLS = 0.2  # of the best score, for a passage that tells something …
TELLER = 1.3  # … and for one of the side that tells, where the other one mostly asks
_APART = 0.25  # by how much more of one side's passages must be dull for that
_FEW = 10  # passages of each side, for that to be known
_DULL_SIGNS = signs.CHATTER | signs.QUESTION


def weighed(query: Query, ranked: Sequence[Scored], found: Mapping[Place, Found]) -> list[Scored]:
    """Those of `ranked` whose texts were `found`, and the others that were found, best first."""
    top = ranked[0].score if ranked else 1.0
    teller = _teller(found.values()) if query.role != "assistant" else None
    scores = {(one.place, one.part or 0): one.score for one in reversed(ranked)}
    made: list[tuple[float, int, int]] = []
    for place, one in found.items():
        score = scores.get(place, 0.0)
        if one.signals & _DULL_SIGNS:
            score *= DULL
        elif teller is None or one.role == teller:
            score += TELLS * top
        if one.role == teller:
            score *= TELLER
        if score > 0:
            made.append((-score, *place))
    made.sort()
    return [Scored(place, part, -score) for score, place, part in made]


def _teller(passages: Iterable[Found]) -> str | None:
    """`user` where the assistant mostly asks or encourages; None where both tell, or can't be told apart.

    It is never the assistant: who asks much of it still tells about themselves, in the few other messages.
    """
    count, dull = {"user": 0, "assistant": 0}, {"user": 0, "assistant": 0}
    for one in passages:
        if one.role in count:
            count[one.role] += 1
            dull[one.role] += bool(one.signals & _DULL_SIGNS)
    if min(count.values()) < _FEW:
        return None
    users, assistants = (dull[role] / count[role] for role in ("user", "assistant"))
    return "user" if assistants - users > _APART else None
