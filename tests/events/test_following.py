"""The seam between the past and what comes: nothing is told twice, nothing is left out, whatever happens when."""

from datetime import UTC, datetime
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from baatcheet.events.following import MOST_WAITING, Follower, Roster, Told
from baatcheet.kit.ids import new_id
from tests.running import Event, events

USERS = [new_id() for _ in range(3)]
TYPES = ["job.updated", "turn.completed"]
NOW = datetime(2027, 1, 31, 12, tzinfo=UTC)


def told(seq: int, user: UUID | None = None, type: str = "job.updated") -> Told:  # noqa: A002
    return Told(seq, UUID(int=seq), user, type, f'{{"number": {seq}}}', NOW)


def read(blocks: bytes) -> list[Event]:
    return list(events(iter(blocks.decode().split("\n"))))


class Client:
    """A client that reads its past in pages, as a stream does, and then what comes."""

    def __init__(self, follower: Follower, after: int | None) -> None:
        self.follower = follower
        self.begun_at = after  # the number after which it wants everything
        self.cursor = after or 0
        self.past_is_told = after is None
        self.joined = False
        self.got: list[int] = []

    @property
    def live(self) -> bool:
        return self.past_is_told and self.follower.floor is not None


class Merge(RuleBasedStateMachine):
    """The relay commits, rounds are asked and told with anything between, clients come, read pages, and leave."""

    def __init__(self) -> None:
        super().__init__()
        self.roster = Roster()
        self.committed: list[Told] = []
        self.round: tuple[list[Told], int] | None = None
        self.clients: list[Client] = []
        self.next = 1

    def wanted(self, client: Client, after: int) -> list[Told]:
        follower = client.follower
        return [
            one
            for one in self.committed
            if one.seq > after
            and (follower.everything or one.user == follower.user)
            and (follower.types is None or one.type in follower.types)
        ]

    @rule(
        batch=st.lists(
            st.tuples(
                st.sampled_from([*USERS, None]), st.sampled_from(TYPES), st.integers(min_value=1, max_value=3)
            ),
            max_size=6,
        )
    )
    def relay(self, batch: list[tuple[UUID | None, str, int]]) -> None:
        for user, type_, step in batch:  # numbers have gaps
            self.committed.append(told(self.next, user, type_))
            self.next += step

    @rule(
        user=st.sampled_from(USERS),
        everything=st.booleans(),
        types=st.sampled_from([None, frozenset(["turn.completed"])]),
        back=st.none() | st.integers(min_value=0, max_value=12),
    )
    def come(self, user: UUID, everything: bool, types: frozenset[str] | None, back: int | None) -> None:
        follower = Follower(user, new_id(), everything=everything, types=types)
        newest = self.committed[-1].seq if self.committed else 0
        client = Client(follower, None if back is None else max(0, newest - back))
        if client.begun_at is None:
            self.roster.join(follower)
            client.joined = True
        self.clients.append(client)

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), size=st.integers(min_value=1, max_value=4))
    def read_a_page(self, data: st.DataObject, size: int) -> None:
        client = data.draw(st.sampled_from(self.clients))
        if client.past_is_told or (client.joined and client.follower.floor is None):
            return
        floor = client.follower.floor
        found = [one for one in self.wanted(client, client.cursor) if floor is None or one.seq <= floor]
        page = found[:size]
        client.got += [one.seq for one in page]
        if page:
            client.cursor = page[-1].seq
        if len(page) < size:
            if floor is not None:
                client.past_is_told = True
            else:
                client.follower.known = client.cursor
                self.roster.join(client.follower)
                client.joined = True

    @precondition(lambda self: self.round is None)
    @rule(limit=st.integers(min_value=1, max_value=5))
    def ask(self, limit: int) -> None:
        """What a round's statement sees: a snapshot of now, for those who follow now."""
        roster = self.roster
        head = self.committed[-1].seq if self.committed else 0
        if roster.position is None or not (roster.users or roster.everything):
            self.round = ([], head)
            return
        found = [
            one
            for one in self.committed
            if one.seq > roster.position and (roster.everything or one.user in roster.users)
        ][:limit]
        self.round = (found, found[-1].seq if len(found) == limit else head)

    @precondition(lambda self: self.round is not None)
    @rule()
    def tell(self) -> None:
        assert self.round is not None
        found, upto = self.round
        self.round = None
        self.roster.tell(found, upto)
        for client in self.clients:
            if client.begun_at is None and client.follower.floor is not None:
                client.begun_at = client.follower.floor

    @precondition(lambda self: any(client.live for client in self.clients))
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from([one for one in self.clients if one.live]))
        found = client.follower.take()
        if found is not None:
            last, blocks = found
            seen = [event.id for event in read(blocks)]
            assert seen[-1] == last
            client.got += [seq for seq in seen if seq is not None]

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(self.clients))
        self.clients.remove(client)
        self.roster.leave(client.follower)

    @invariant()
    def each_has_what_is_its_own_in_order_and_once(self) -> None:
        for client in self.clients:
            if client.begun_at is None:
                assert client.got == []
                continue
            wanted = [one.seq for one in self.wanted(client, client.begun_at)]
            assert client.got == wanted[: len(client.got)]
            # One that waits for nothing has all that was read: a number to go on from leaves nothing out.
            if client.live and client.follower.empty:
                assert self.roster.position is not None
                upto = max(client.cursor, self.roster.position)
                assert client.got == [seq for seq in wanted if seq <= upto]


TestMerge = Merge.TestCase


def test_an_event_is_told_to_its_user_without_saying_whose_it_is() -> None:
    event = told(7, USERS[0], "turn.completed")
    (own,) = read(event.frame())
    assert (own.id, own.name) == (7, "turn.completed")
    assert own.data == {
        "id": str(UUID(int=7)),
        "type": "turn.completed",
        "timestamp": "2027-01-31T12:00:00Z",
        "data": {"number": 7},
    }
    (whole,) = read(event.frame(whose=True))
    assert whole.data == own.data | {"user_id": str(USERS[0])}
    (nobodys,) = read(told(8).frame(whose=True))
    assert nobodys.data["user_id"] is None


def test_a_follower_that_is_too_slow_is_let_go_and_keeps_nothing() -> None:
    roster = Roster()
    slow, quick = (Follower(USERS[0], new_id()) for _ in range(2))
    ends: list[str] = []
    slow.on_close = lambda: ends.append("now")
    for follower in (slow, quick):
        roster.join(follower)
    roster.tell((), 0)
    for seq in range(1, MOST_WAITING + 2):
        roster.tell([told(seq, USERS[0])], seq)
        assert quick.take() is not None
    assert slow.closed == "too slow"
    assert slow.take() is None
    assert ends == ["now"]
    roster.tell([told(5_000, USERS[0])], 5_000)
    assert slow.take() is None


def test_large_events_count_by_their_size() -> None:
    follower = Follower(USERS[0], new_id())
    large = Told(1, UUID(int=1), USERS[0], "job.updated", f'"{"x" * 1_500_000}"', NOW)
    for _ in range(2):
        follower.offer(large)
    assert follower.closed is None
    follower.offer(large)
    assert follower.closed == "too slow"
