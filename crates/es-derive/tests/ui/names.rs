use es_derive::Event;

#[derive(Event)]
#[event(topic = "bank:Opened")]
struct Reserved {
    timestamp: u64,
    originator_id: u64,
    originator_version: u64,
    class_version: u64,
}

#[derive(Event)]
#[event(topic = "bank:Account")]
enum Renamed {
    Opened {
        #[serde(rename = "timestamp")]
        at: u64,
        #[serde(rename(serialize = "originator_id", deserialize = "id"))]
        id: u64,
        #[serde(alias = "class_version")]
        version: u64,
        #[serde(rename(serialize = "written"))]
        originator_version: u64,
    },
    #[serde(rename_all = "camelCase")]
    Closed { timestamp: u64 },
}

#[derive(Event)]
#[event(topic = "bank:Opened")]
struct Twice {
    owner: String,
    #[serde(rename = "owner")]
    name: String,
}

fn main() {}
