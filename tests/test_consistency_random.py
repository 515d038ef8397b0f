"""The checker of histories, by chance: it blames no store that keeps its promises, and each that does not."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hypothesis import assume, given
from hypothesis import strategies as st

from tests.consistency.checker import Rule, check
from tests.consistency.history import History, Kind, Level, Opening, Operation, Outcome, Past, Row

TENANTS, ITEMS, REPLICAS = ("acme", "globex"), 2, 2

#: What happens next: a word, and numbers that choose whom and what it happens to.
Step = tuple[str, int, int, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(["open", "write", "write", "read", "read", "eventual", "strong", "replay"]),
        st.integers(0, 30),
        st.integers(0, 30),
        st.integers(0, 30),
    ),
    min_size=8,
    max_size=60,
)


@dataclass
class Client:
    """Hold a session of the simulation: how far its reads must have come, and what it knows."""

    number: int
    tenant: str
    position: int = 0
    known: set[int] = field(default_factory=set)
    operations: int = 0

    @property
    def past(self) -> Past:
        return Past(self.number, self.operations)


class Store:
    """Keep one log for a primary and replicas that lag, and route reads as promised."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int, int]] = []
        self.replayed = [0] * REPLICAS
        self.clients: list[Client] = []
        self.history = History()
        self.known: list[set[int]] = []  # of each operation: what its session knew before
        self.now = 0.0

    def run(self, program: list[Step]) -> "Store":
        """Run a program to its end."""
        for word, who, what, how in program:
            self.now += 1
            if word == "open" or not self.clients:
                self.open(who, what, how)
            elif word == "replay":
                self.replay(who % REPLICAS, what)
            elif word == "write":
                self.write(self.clients[who % len(self.clients)], what % ITEMS, how)
            else:
                self.read(self.clients[who % len(self.clients)], what % ITEMS, word, how)
        self.history.final = [Row(tenant, tenant, item, number) for tenant, item, number in self.log]
        return self

    def open(self, who: int, first: int, second: int) -> None:
        made = Client(len(self.clients), TENANTS[who % len(TENANTS)])
        kin = [each for each in self.clients if each.tenant == made.tenant]
        parents = [kin[number % len(kin)] for number in (first, second) if kin and number % 3]
        made.position = max((each.position for each in parents), default=0)
        made.known = set().union(*(each.known for each in parents))
        after = tuple(each.past for each in parents)
        self.history.openings.append(Opening(made.number, 0, 0, made.tenant, self.now, after))
        self.clients.append(made)

    def replay(self, replica: int, count: int) -> None:
        self.replayed[replica] = min(self.replayed[replica] + count, len(self.log))

    def write(self, client: Client, item: int, how: int) -> None:
        number = 100 + len(self.history.operations)
        outcome = (Outcome.OK, Outcome.OK, Outcome.UNKNOWN, Outcome.FAILED)[how % 4]
        self.note(client, Kind.WRITE, item, (number,), outcome=outcome)
        if outcome is Outcome.OK or (outcome is Outcome.UNKNOWN and how % 8 < 4):
            self.log.append((client.tenant, item, number))
        if outcome is Outcome.OK:
            client.position = len(self.log)
            client.known.add(number)

    def read(self, client: Client, item: int, word: str, how: int) -> None:
        level = {"read": Level.SESSION, "eventual": Level.EVENTUAL, "strong": Level.STRONG}[word]
        places = [len(self.log), *self.replayed]
        if level is Level.SESSION:
            places = [place for place in places if place >= client.position]
        place = places[0] if level is Level.STRONG else places[how % len(places)]
        numbers = tuple(
            number for tenant, at, number in self.log[:place] if (tenant, at) == (client.tenant, item)
        )
        self.note(client, Kind.READ, item, numbers, level=level)
        client.position = max(client.position, place)
        client.known |= set(numbers)

    def note(
        self,
        client: Client,
        kind: Kind,
        item: int,
        numbers: tuple[int, ...],
        outcome: Outcome = Outcome.OK,
        level: Level = Level.SESSION,
    ) -> None:
        self.history.operations.append(
            Operation(
                client.number, 0, client.tenant, kind, item, numbers, self.now, self.now + 0.5, outcome, level
            )
        )
        self.known.append(set(client.known))
        client.operations += 1


@given(steps)
def test_a_store_that_keeps_its_promises_is_not_blamed(program: list[Step]) -> None:
    """Whatever the clients do and however the replicas lag, a correct history has no violation."""
    assert check(Store().run(program).history).violations == []


# --- one wrong thing -------------------------------------------------------------------------------------

#: Return the places where a history can be broken so; break it at one of them.
Breaking = Callable[[Store, int], list[Rule]]


def hide(store: Store, chance: int) -> list[Rule]:
    """Let a read miss what its session knows."""
    places = [
        (index, number)
        for index, each in enumerate(store.history.operations)
        if each.kind is Kind.READ and each.level is Level.SESSION
        for number in sorted(store.known[index].intersection(each.numbers))
    ]
    index, number = chosen(places, chance)
    _drop(store, index, number)
    return [Rule.READ_YOUR_WRITES, Rule.MONOTONIC_READS]


def reorder(store: Store, chance: int) -> list[Rule]:
    """Let any read see a write without one that its writer knew of before."""
    known = {
        each.numbers[0]: store.known[index]
        for index, each in enumerate(store.history.operations)
        if each.kind is Kind.WRITE
    }
    places = [
        (index, cause)
        for index, each in enumerate(store.history.operations)
        if each.kind is Kind.READ
        for effect in each.numbers
        for cause in sorted(known[effect].intersection(each.numbers))
    ]
    index, cause = chosen(places, chance)
    _drop(store, index, cause)
    return [Rule.MONOTONIC_WRITES]


def age(store: Store, chance: int) -> list[Rule]:
    """Let a strong read miss something."""
    places = [
        (index, number)
        for index, each in enumerate(store.history.operations)
        if each.level is Level.STRONG
        for number in each.numbers
        if _write(store, number).outcome is Outcome.OK
    ]
    index, number = chosen(places, chance)
    _drop(store, index, number)
    return [Rule.FRESHNESS]


def repeat(store: Store, chance: int) -> list[Rule]:
    """Let a row be there twice."""
    assert store.history.final is not None
    store.history.final.append(chosen(store.history.final, chance))
    return [Rule.DUPLICATE]


def lose(store: Store, chance: int) -> list[Rule]:
    """Let a row vanish that was acknowledged."""
    assert store.history.final is not None
    places = [row for row in store.history.final if _write(store, row.number).outcome is Outcome.OK]
    store.history.final.remove(chosen(places, chance))
    return [Rule.LOST]


def leak(store: Store, chance: int) -> list[Rule]:
    """Let a row turn up in the other tenant's table."""
    assert store.history.final is not None
    row = chosen(store.history.final, chance)
    other = TENANTS[row.place == TENANTS[0]]
    store.history.final[store.history.final.index(row)] = row._replace(place=other)
    return [Rule.FOREIGN]


def deny(store: Store, chance: int) -> list[Rule]:
    """Tell the writer of a row that is there that the write has failed."""
    assert store.history.final is not None
    number = chosen(store.history.final, chance).number
    index = store.history.operations.index(_write(store, number))
    operation = store.history.operations[index]
    store.history.operations[index] = replace(operation, outcome=Outcome.FAILED)
    return [Rule.PHANTOM]


def chosen(places: list, chance: int):  # type: ignore[no-untyped-def,type-arg]
    """Choose a place; a history without one is no example."""
    assume(places)
    return places[chance % len(places)]


def _drop(store: Store, index: int, number: int) -> None:
    operation = store.history.operations[index]
    left = tuple(each for each in operation.numbers if each != number)
    store.history.operations[index] = replace(operation, numbers=left)


def _write(store: Store, number: int) -> Operation:
    return next(
        each for each in store.history.operations if each.kind is Kind.WRITE and number in each.numbers
    )


BREAKINGS: tuple[Breaking, ...] = (hide, reorder, age, repeat, lose, leak, deny)


@given(steps, st.sampled_from(BREAKINGS), st.integers(0, 1000))
def test_a_broken_history_is_found(program: list[Step], breaking: Breaking, chance: int) -> None:
    """One wrong thing anywhere in a correct history breaks the promise that it breaks."""
    store = Store().run(program)
    expected = breaking(store, chance)
    assert set(check(store.history).counts) & set(expected)
