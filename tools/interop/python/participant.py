"""The Python half of a scenario of `cargo xtask interop`, for versions 9.1 and 9.5 of the library.

    participant.py ROLE TURNS

Opens the datastore that the environment names, prints `ready`, starts at the first line of its input, and prints its findings as one
line of JSON. Roles that run until everything is written end with their input.
`src/participant.rs` is the same in Rust, and describes the roles.
"""
import json
import os
import sys
import time
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from threading import Event, Thread
from uuid import NAMESPACE_URL, uuid5

from bank import Account, Bank, ComplexCustomValue, SimpleCustomValue
from eventsourcing.persistence import IntegrityError, Tracking
from ledger import Entry, Ledger
from plain import plain

SELF = "python"
OTHER = "rust"
ACCOUNTS = [uuid5(NAMESPACE_URL, f"/accounts/{number}") for number in range(3)]
LEAD = 4
PAUSE = 0.001
PAGE = 10


def open_bank(bank):
    for number, account_id in enumerate(ACCOUNTS):
        bank.save(
            Account._create(
                Account.Opened,
                id=account_id,
                owner=f"{SELF} Żółć \U0001F980\u2028\x7f\0 {number}",
                owner_id=uuid5(NAMESPACE_URL, f"/owners/{number}"),
                birthday=date(2000, 2, 20 + number),
                limit=Decimal("1E+30"),
            )
        )


def write(bank, turns):
    conflicts = 0
    snapshots = []
    for turn in range(turns):
        account_id = ACCOUNTS[turn % len(ACCOUNTS)]
        account, refused = take_turn(bank, account_id, turn)
        conflicts += refused
        if turn % 7 == 6:
            bank.take_snapshot(account_id, version=account.version)
            snapshots.append([str(account_id), account.version])
    return {"conflicts": conflicts, "snapshots": snapshots}


def take_turn(bank, account_id, turn):
    conflicts = 0
    while True:
        account = bank.repository.get(account_id)
        if lead(account) >= LEAD:
            time.sleep(PAUSE)
            continue
        version = account.version + 1
        note = f"{SELF} {turn} 名前 \U0001F980"
        account.credit(Decimal(turn) / 4, note, tags(account, turn), booked_at(turn))
        if turn % 5 == 0:
            account.verify(proof(turn), turn / 7, 2**64 + turn, turn % 2 == 0, {"note": note, "none": None})
        try:
            bank.save(account)
        except IntegrityError:
            require_taken(bank, account_id, version, note)
            conflicts += 1
        else:
            return account, conflicts


def lead(account):
    """How far we are ahead of the other side, by the notes on this account."""
    return sum(1 if note.startswith(SELF) else -1 for note in account.notes)


def tags(account, turn):
    return [account.id, None, [turn, [[1.5, "ł\0"], {}]], {"a": {"b": [Decimal("-0.10"), date(1999, 12, 31)]}}]


def booked_at(turn):
    naive = datetime(2021, 12, 31, 23, 59, 59, turn)
    offset = timezone(timedelta(hours=5, minutes=30, seconds=turn % 2))
    return naive.replace(tzinfo=offset) if turn % 3 else naive


def proof(turn):
    return ComplexCustomValue(SimpleCustomValue(uuid5(NAMESPACE_URL, str(turn)), date(2020, 1, 1 + turn % 28)))


def require_taken(bank, account_id, version, note):
    """A conflict is real if somebody else's event stands at that version."""
    taken = list(bank.events.get(account_id, gt=version - 1, lte=version))
    if not taken:
        raise AssertionError(f"version {version} of {account_id} was refused, and is not taken")
    if getattr(taken[0], "note", None) == note:
        raise AssertionError(f"{note!r} was refused for itself")


def follow(bank, is_written):
    log = []
    while True:
        is_last_look = is_written.is_set()
        start = log[-1]["id"] + 1 if log else 1
        page = bank.recorder.select_notifications(start=start, limit=PAGE)
        log.extend(logged(bank.mapper, notification) for notification in page)
        if page:
            continue
        if is_last_look:
            return {"log": log}
        time.sleep(PAUSE)


def can_subscribe(bank):
    """Version 9.5 can, on PostgreSQL."""
    return hasattr(bank.recorder, "subscribe") and "postgres" in os.environ["PERSISTENCE_MODULE"]


def subscribe(bank, is_written):
    """Follows by a subscription, which NOTIFY wakes after commits of either side."""
    log = []

    def stop_at_the_end(subscription):
        is_written.wait()
        last = bank.recorder.max_notification_id()
        while not log or log[-1]["id"] < last:
            time.sleep(PAUSE)
        subscription.stop()

    with bank.recorder.subscribe(gt=0) as subscription:
        Thread(target=stop_at_the_end, args=(subscription,), daemon=True).start()
        for notification in subscription:
            log.append(logged(bank.mapper, notification))
    return {"log": log}


def process(bank, ledger, is_written):
    processed = conflicts = 0
    while True:
        is_last_look = is_written.is_set()
        page = bank.recorder.select_notifications(start=ledger.position() + 1, limit=1)
        if not page and is_last_look:
            return {"processed": processed, "conflicts": conflicts}
        if not page or not is_for_us(bank, page[0]):
            time.sleep(PAUSE)
        elif book(ledger, page[0].id):
            processed += 1
        else:
            conflicts += 1


def is_for_us(bank, notification):
    """Each side processes what the other wrote, and they race for every fifth notification."""
    return notification.id % 5 == 0 or author(bank.mapper.to_domain_event(notification)) == OTHER


def author(event):
    attributes = vars(event)
    text = attributes.get("owner") or attributes.get("note") or attributes["remark"]["note"]
    return text.split()[0]


def book(ledger, notification_id):
    """Whether we have booked it; if not, the other side has."""
    entry = Entry(notification_id=notification_id, booked_by=SELF)
    events = [stored(ledger.mapper, event) for event in entry.collect_events()]
    try:
        ledger.recorder.insert_events(events, tracking=Tracking("bank", notification_id))
    except IntegrityError:
        if ledger.position() < notification_id:
            raise AssertionError(f"position {notification_id} was refused, and is not recorded") from None
        return False
    return True


def report(bank, ledger):
    require_refusals(bank, ledger)
    return {
        "log": everything(bank.recorder, bank.mapper),
        "accounts": [account_report(bank, account_id) for account_id in ACCOUNTS],
        "ledger": everything(ledger.recorder, ledger.mapper),
        "position": ledger.position(),
    }


def require_refusals(bank, ledger):
    """Recorded versions and positions are refused, regardless of the side that recorded them."""
    account = bank.repository.get(ACCOUNTS[0], version=1)
    account.close()
    try:
        bank.save(account)
    except IntegrityError:
        pass
    else:
        raise AssertionError("a version that is taken was not refused")
    if book(ledger, ledger.position()):
        raise AssertionError("a position that is recorded was not refused")


def account_report(bank, account_id):
    events = list(bank.events.get(account_id))
    loaded = bank.repository.get(account_id)
    return {
        "id": str(account_id),
        "version": loaded.version,
        "loaded": state(loaded),
        "replayed": state(replayed(events, loaded.version)),
        "snapshots": [
            {
                "version": snapshot.originator_version,
                "kept": state(snapshot.mutate(None)),
                "replayed": state(replayed(events, snapshot.originator_version)),
            }
            for snapshot in bank.snapshots.get(account_id)
        ],
    }


def replayed(events, version):
    account = None
    for event in events:
        if event.originator_version <= version:
            account = event.mutate(account)
    return account


def state(account):
    names = ["created_on", "modified_on", "owner", "owner_id", "birthday", "limit", "balance", "notes"]
    optional = ["proof", "closed"]
    attributes = {name: plain(getattr(account, name)) for name in names}
    return {**attributes, **{name: plain(getattr(account, name, None)) for name in optional}}


def everything(recorder, mapper):
    return [logged(mapper, notification) for notification in recorder.select_notifications(start=1, limit=10**9)]


def logged(mapper, notification):
    event = mapper.to_domain_event(notification)
    attributes = dict(vars(event))
    return {
        "id": notification.id,
        "originator_id": str(attributes.pop("originator_id")),
        "version": attributes.pop("originator_version"),
        "topic": notification.topic,
        "timestamp": plain(attributes.pop("timestamp")),
        "attributes": {name: plain(value) for name, value in attributes.items()},
    }


def stored(mapper, event):
    """Version 9.5 has another name for it than 9.1."""
    to_stored_event = getattr(mapper, "to_stored_event", None) or mapper.from_domain_event
    return to_stored_event(event)


def begin():
    """Waits for the word to begin; the event is set when everything is written."""
    print("ready", flush=True)
    sys.stdin.readline()
    is_written = Event()

    def wait():
        sys.stdin.read()
        is_written.set()

    Thread(target=wait, daemon=True).start()
    return is_written


def main():
    role, turns = sys.argv[1], int(sys.argv[2])
    bank = None if role == "open-ledger" else Bank()
    ledger = None if role in ("open-bank", "write", "follow") else Ledger()
    is_written = begin()
    roles = {
        "open-bank": lambda: open_bank(bank),
        "open-ledger": lambda: None,
        "write": lambda: write(bank, turns),
        "follow": lambda: (subscribe if can_subscribe(bank) else follow)(bank, is_written),
        "process": lambda: process(bank, ledger, is_written),
        "report": lambda: report(bank, ledger),
    }
    findings = roles[role]()
    for application in (bank, ledger):
        # Version 9.1 has no way to close one.
        getattr(application, "close", lambda: None)()
    print(json.dumps(findings), flush=True)


if __name__ == "__main__":
    main()
