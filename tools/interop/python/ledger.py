"""The downstream application: it books each notification of the bank, once."""
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event


class Entry(Aggregate):
    class Booked(Aggregate.Created):
        notification_id: int
        booked_by: str

    @event(Booked)
    def __init__(self, notification_id, booked_by):
        self.notification_id = notification_id
        self.booked_by = booked_by


class Ledger(Application):
    def construct_recorder(self):
        return self.factory.process_recorder()

    def position(self):
        return self.recorder.max_tracking_id("bank") or 0
