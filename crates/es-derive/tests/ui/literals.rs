use es_derive::Event;

#[derive(Event)]
#[event(topic = 5)]
struct Topic {}

#[derive(Event)]
#[event(topic)]
struct TopicWithoutText {}

#[derive(Event)]
#[event(topic = "bank:Opened", alias = bank)]
struct Alias {}

#[derive(Event)]
#[event(topic = "bank:Opened", version = "2")]
struct Version {}

#[derive(Event)]
#[event(topic = "bank:Opened", version = -1)]
struct Negative {}

#[derive(Event)]
#[event(topic = "bank:Opened", version = 2, upcast(1 = "V1"))]
struct QuotedLayout {}

#[derive(Event)]
#[event(topic = "bank:Opened", version = 2, upcast("1" = V1))]
struct QuotedVersion {}

#[derive(Event)]
#[event(topic = "bank:Opened", version = 2, upcast = V1)]
struct UpcastWithoutList {}

#[derive(Event)]
#[event(topic = "bank:Opened", crate = "es_core")]
struct QuotedCrate {}

#[derive(Event)]
#[event(topic = "bank:Opened")]
struct Fields {
    #[event(as = "Vec<Registered>")]
    quoted: Vec<u8>,
    #[event(registered = "Vec<_>")]
    registered: Vec<u8>,
}

fn main() {}
