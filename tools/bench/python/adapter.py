"""The Python library as a measured system: the protocol is described in `src/systems/program.rs`.

Everything has the defaults of the library: its factory builds recorders and mappers from an environment, as for any
user. Timing is done here, so starting Python and communicating with it are not measured.
"""

import json
import os
import random
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, version
from itertools import count as count_from
from threading import Barrier, Thread
from time import perf_counter
from uuid import UUID

from eventsourcing.domain import DomainEvent
from eventsourcing.persistence import (
    DatetimeAsISO,
    DecimalAsStr,
    InfrastructureFactory,
    IntegrityError,
    JSONTranscoder,
    StoredEvent,
    Tracking,
    UUIDAsHex,
)

IS_9_1 = version("eventsourcing").startswith("9.1.")
TOPIC = "bank:Account.Credited"
STATE_SIZE = 200
PAGE = 1_000
RANDOM = random.Random(0x5EED0FEE)


class Transferred(DomainEvent):
    transaction_id: UUID
    booked_at: datetime
    amount: Decimal
    description: str


if IS_9_1:  # Later versions make every event a data class.
    Transferred = dataclass(frozen=True)(Transferred)


def construct(name, env):
    module = f"eventsourcing.{name}"
    if IS_9_1:
        env = {"INFRASTRUCTURE_FACTORY": f"{module}:Factory", **env}
        return InfrastructureFactory.construct(env=env)
    return InfrastructureFactory.construct({"PERSISTENCE_MODULE": module, **env})


def versions(*packages):
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            pass
    return ", ".join([f"Python {sys.version.split()[0]}", *found])


# Measured systems, opened as the first line of the input requests.


def open_popo(_request):
    return Recorded(construct("popo", {})), ""


def open_sqlite(request):
    import sqlite3

    factory = construct("sqlite", {"SQLITE_DBNAME": request["path"]})
    system = Recorded(factory)
    # The library sets none of these but the journal: a connection of our own has the same defaults.
    connection = sqlite3.connect(request["path"])
    journal, synchronous, checkpoint = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "wal_autocheckpoint")
    )
    connection.close()
    synchronous = ("OFF", "NORMAL", "FULL", "EXTRA")[synchronous]
    return system, (
        f"{versions()}, SQLite {sqlite3.sqlite_version}, journal_mode={journal}, "
        f"synchronous={synchronous}, wal_autocheckpoint={checkpoint}"
    )


def open_postgres(request):
    names = ("DBNAME", "HOST", "PORT", "USER", "PASSWORD")
    env = {f"POSTGRES_{name}": os.environ[f"POSTGRES_{name}"] for name in names}
    if IS_9_1:  # It has no schema setting: the driver receives it.
        os.environ["PGOPTIONS"] = f"-c search_path={request['schema']}"
    factory = construct("postgres", {**env, "POSTGRES_SCHEMA": request["schema"]})
    settings = versions("psycopg2-binary", "psycopg", "psycopg-binary")
    system = (Tracked if request["is_tracked"] else Recorded)(factory)
    return system, f"{settings}, the server's durability"


def open_mapper(request):
    env = {}
    if request["is_compressed"]:
        env["COMPRESSOR_TOPIC"] = "eventsourcing.compressor:ZlibCompressor"
    if request["cipher_key"]:
        module = "cipher" if IS_9_1 else "cryptography"
        env["CIPHER_TOPIC"] = f"eventsourcing.{module}:AESCipher"
        env["CIPHER_KEY"] = request["cipher_key"]
    transcoder = JSONTranscoder()
    for transcoding in (UUIDAsHex(), DecimalAsStr(), DatetimeAsISO()):
        transcoder.register(transcoding)
    mapper = construct("popo", env).mapper(transcoder=transcoder)
    return Mapped(mapper), versions("cryptography" if not IS_9_1 else "pycryptodome")


class Recorded:
    """An application recorder."""

    def __init__(self, factory):
        self.factory = factory
        self.recorder = factory.application_recorder()
        self.idle = resident("VmRSS")

    def append(self, work):
        count, size = work["events"], work["size"]
        commits = [
            [stored_events(new_id(), count, size) for _ in range(work["commits"])]
            for _ in range(work["tasks"])
        ]

        def task(number):
            for batch in commits[number]:
                yield lambda: self.recorder.insert_events(batch)

        return in_threads(work["tasks"], task, count)

    def contend(self, work):
        hot = [new_id() for _ in range(work["aggregates"])]
        state = random_state(STATE_SIZE)

        def append_to(originator_id):
            while True:
                last = self.recorder.select_events(originator_id, desc=True, limit=1)
                version = last[0].originator_version + 1 if last else 1
                try:
                    self.recorder.insert_events([StoredEvent(originator_id, version, TOPIC, state)])
                    return
                except IntegrityError:
                    pass

        def task(number):
            for _ in range(work["commits"]):
                yield lambda: append_to(hot[number % len(hot)])

        return in_threads(work["tasks"], task, 1)

    def load(self, work):
        originator_id = UUID(work["originator_id"])
        if not self.recorder.select_events(originator_id):  # A database in memory has none at first.
            self.recorder.insert_events(stored_events(originator_id, work["events"], STATE_SIZE))

        def run():
            for _ in range(work["times"]):
                found = len(self.recorder.select_events(originator_id))
                check(found, work["events"])

        return timed(work["times"] * work["events"], run)

    def paced_append(self, work):
        batches = [stored_events(new_id(), 1, STATE_SIZE) for _ in range(work["commits"])]
        return paced(1, work["pause"], batches, self.recorder.insert_events)

    def paced_load(self, work):
        def load(originator_id):
            check(len(self.recorder.select_events(originator_id)), work["events"])

        originator_ids = [UUID(originator_id) for originator_id in work["originator_ids"]]
        return paced(work["events"], work["pause"], originator_ids, load)

    def page(self, work):
        return self.read(work["after"] + 1, work["events"], work["page"])

    def stream(self, work):
        return self.read(1, work["events"], PAGE)

    def read(self, first, events, page):
        def run():
            seen, start = 0, first
            while seen < events:
                notifications = self.recorder.select_notifications(start, min(page, events - seen))
                if not notifications:
                    break
                seen += len(notifications)
                start = notifications[-1].id + 1
            check(seen, events)

        return with_memory(timed(events, run), self.idle)

    def append_and_load(self, work):
        count = work["events"]
        batches = [stored_events(new_id(), count, STATE_SIZE) for _ in range(work["aggregates"])]

        # A recorder for each round, so that it does not grow from round to round.
        recorder = self.factory.application_recorder()

        def run():
            for batch in batches:
                for event in batch:
                    recorder.insert_events([event])
                check(len(recorder.select_events(batch[0].originator_id)), count)

        return timed(work["aggregates"] * count, run)


class Tracked(Recorded):
    """A process recorder that records the next position with each append."""

    def __init__(self, factory):
        super().__init__(factory)
        self.recorder = ProcessRecorder(factory.process_recorder())


class ProcessRecorder:
    def __init__(self, recorder):
        self.recorder = recorder
        self.positions = count_from(1)

    def insert_events(self, events):
        self.recorder.insert_events(events, tracking=Tracking("upstream", next(self.positions)))


class Mapped:
    """A mapper alone."""

    def __init__(self, mapper):
        self.idle = resident("VmRSS")
        self.to_stored = mapper.from_domain_event if IS_9_1 else mapper.to_stored_event
        self.to_domain = mapper.to_domain_event
        self.event = Transferred(
            originator_id=UUID(int=1),
            originator_version=7,
            timestamp=datetime(2024, 2, 29, 12, 35, 0, 123, tzinfo=timezone.utc),
            transaction_id=UUID("123456789abc4def8123456789abcdef"),
            booked_at=datetime(2024, 2, 29, 12, 34, 56, 789012, tzinfo=timezone.utc),
            amount=Decimal("1234.56"),
            description="Invoice 2024-0815, thank you for shopping at Müller & Söhne",
        )
        self.stored = self.to_stored(self.event)
        if self.to_domain(self.stored) != self.event:
            raise ValueError("the mapper does not give back what it was given")

    def encode(self, work):
        return self.repeat(work["times"], self.to_stored, self.event)

    def decode(self, work):
        return self.repeat(work["times"], self.to_domain, self.stored)

    def encode_and_decode(self, work):
        measured = self.repeat(work["times"], lambda event: self.to_domain(self.to_stored(event)), self.event)
        return with_memory(measured, self.idle)

    def repeat(self, times, convert, what):
        def run():
            for _ in range(times):
                convert(what)

        return timed(times, run)


# Stored events, and timing.


def new_id():
    return UUID(int=RANDOM.getrandbits(128), version=4)


def random_state(size):
    return RANDOM.randbytes(size // 2 + 1).hex()[:size].encode()


def stored_events(originator_id, count, size):
    return [
        StoredEvent(originator_id, version, TOPIC, random_state(size))
        for version in range(1, count + 1)
    ]


def timed(events, run):
    start = perf_counter()
    run()
    return {"events": events, "seconds": perf_counter() - start}


def paced(events, pause, inputs, call):
    """Makes a call with each input after so many microseconds of other work; only the calls are measured."""
    latencies = []
    for given in inputs:
        end = perf_counter() + pause / 1e6
        while perf_counter() < end:
            pass
        start = perf_counter()
        call(given)
        latencies.append(perf_counter() - start)
    return with_quantiles(events, sum(latencies), latencies)


def with_memory(measured, idle):
    peak = resident("VmHWM")
    if peak is not None and idle is not None:
        measured["mebibytes"] = max(0, peak - idle) / 1024
    return measured


def in_threads(count, task, events):
    """Runs the calls of each task in a thread of its own, all starting at once."""
    latencies, failures = [], []
    barrier = Barrier(count + 1)

    def run(number):
        try:
            calls = task(number)
            mine = []
            barrier.wait()
            for call in calls:
                start = perf_counter()
                call()
                mine.append(perf_counter() - start)
            latencies.extend(mine)
        except Exception as error:
            failures.append(error)
            barrier.abort()

    threads = [Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = perf_counter()
    for thread in threads:
        thread.join()
    seconds = perf_counter() - start
    if failures:
        raise failures[0]
    return with_quantiles(events, seconds, latencies)


def with_quantiles(events, seconds, latencies):
    latencies.sort()
    return {
        "events": len(latencies) * events,
        "seconds": seconds,
        "p50": quantile(latencies, 0.5),
        "p99": quantile(latencies, 0.99),
    }


def quantile(ordered, fraction):
    position = fraction * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def check(found, expected):
    if found != expected:
        raise ValueError(f"{found} events were read, not {expected}")


def resident(name):
    """Returns a memory size in KiB, or None where the system does not report it."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(name + ":"))
    except (OSError, StopIteration):
        return None


OPEN = {
    "popo": open_popo,
    "sqlite": open_sqlite,
    "postgres": open_postgres,
    "mapper": open_mapper,
}


def main():
    system = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if system is None:
                system, settings = OPEN[request["datastore"]](request)
                answer = {"settings": settings}
            else:
                answer = getattr(system, request["work"])(request)
        except Exception as error:
            first_line = (str(error).splitlines() or [""])[0]
            answer = {"error": f"{type(error).__name__}: {first_line}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
