use es_derive::Event;

#[derive(Event)]
struct Without {}

#[derive(Event)]
enum WithoutSome {
    #[event(topic = "bank:Opened")]
    Opened,
    Closed,
}

#[derive(Event)]
#[event(topic = "")]
struct Empty {}

#[derive(Event)]
#[event(topic = "bank:\0")]
struct Nul {}

#[derive(Event)]
#[event(topic = "bank:Opened", alias = "")]
struct EmptyAlias {}

#[derive(Event)]
#[event(topic = "bank:Opened", topic = "bank:Closed")]
struct Twice {}

#[derive(Event)]
#[event(topic = "bank:Account")]
enum Duplicate {
    Opened,
    #[event(topic = "bank:Account.Opened")]
    Reopened,
    #[event(alias = "bank:Account.Closed", alias = "bank:Ended")]
    Closed,
    #[event(alias = "bank:Ended")]
    Ended,
}

#[derive(Event)]
#[event(topic = "bank:Opened", alias = "bank:Opened")]
struct AliasOfItself {}

fn main() {}
