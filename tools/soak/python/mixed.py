"""The Python half of a mixed soak: a participant that writes or follows with the Python library.

    mixed.py open|write|follow NAME POSITION

Prints the lines that `src/mixed/journal.rs` reads. A writer stops at the line `stop` of its input; a follower
begins after POSITION, and stops when it has read the id in the line `end ID`.
"""
import os
import random
import sys
import threading
import time
from uuid import NAMESPACE_URL, uuid5

from eventsourcing.persistence import InfrastructureFactory, IntegrityError, StoredEvent, Tracking
from eventsourcing.utils import Environment

AGGREGATES = 4
PAGE = 200


def say(*words):
    sys.stdout.write(" ".join(str(word) for word in words) + "\n")
    sys.stdout.flush()


def read_input(said):
    for line in sys.stdin:
        said.append(line.split())
    # The parent has ended.
    os._exit(1)


def version(recorder, originator_id):
    newest = list(recorder.select_events(originator_id, desc=True, limit=1))
    return newest[0].originator_version if newest else 0


def write(recorder, name, said):
    number = 0
    owner = name.split(".")[0]
    versions, position = {}, None
    while not said:
        number += 1
        key = f"{name}.{number}"
        chosen = random.sample(range(AGGREGATES), random.choice([1, 1, 1, 3]))
        count = random.choice([1, 1, 2])
        events = len(chosen) * count
        tracking = None
        try:
            if random.random() < 0.3:
                if position is None:
                    position = recorder.max_tracking_id(owner) or 0
                position += 1
                tracking = Tracking(owner, position)
            stored = []
            for aggregate in chosen:
                originator_id = uuid5(NAMESPACE_URL, f"/{owner}/{aggregate}")
                if originator_id not in versions:
                    versions[originator_id] = version(recorder, originator_id)
                for _ in range(count):
                    versions[originator_id] += 1
                    state = f"{key} {len(stored)} {events}".encode()
                    topic = f"mixed:Event{aggregate % 3}"
                    stored.append(StoredEvent(originator_id, versions[originator_id], topic, state))
            say("put", key, events, *([owner, position] if tracking else []))
            ids = recorder.insert_events(stored, **({"tracking": tracking} if tracking else {}))
            say("ok", key, *ids)
        except IntegrityError:
            # The library sends a lost request once more, so this may be a conflict with itself.
            versions, position = {}, None
        except Exception as error:
            print(f"{name}: {error!r}", file=sys.stderr)
            versions, position = {}, None
            time.sleep(0.1)
        time.sleep(random.random() * 0.05)


def follow(recorder, name, position, said):
    end = None
    while end is None or position < end:
        if said and end is None:
            end = int(said[0][1])
        try:
            page = recorder.select_notifications(start=position + 1, limit=PAGE)
        except Exception as error:
            print(f"{name}: {error!r}", file=sys.stderr)
            time.sleep(0.1)
            continue
        if page:
            position = page[-1].id
            say("saw", name, *(notification.id for notification in page))
        else:
            time.sleep(0.01)


def main():
    role, name, position = sys.argv[1], sys.argv[2], int(sys.argv[3])
    recorder = None
    while recorder is None:
        try:
            recorder = InfrastructureFactory.construct(Environment("Mixed", os.environ)).process_recorder()
        except Exception as error:
            # The session may be terminated.
            print(f"{name}: {error!r}", file=sys.stderr)
            time.sleep(0.1)
    if role == "open":
        return
    said = []
    threading.Thread(target=read_input, args=(said,), daemon=True).start()
    if role == "write":
        write(recorder, name, said)
    else:
        follow(recorder, name, position, said)


main()
# Threads of the pool do not hold up the end.
os._exit(0)
