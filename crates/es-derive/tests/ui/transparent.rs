use es_derive::Event;

#[derive(Event)]
#[event(topic = "shop:Order")]
struct Order {}

#[derive(Event)]
#[event(topic = "shop:Stock")]
struct Stock {}

#[derive(Event)]
#[event(transparent)]
struct OfStruct(Order);

#[derive(Event)]
#[event(transparent, topic = "shop:Shop")]
enum WithTopic {
    Order(Order),
}

#[derive(Event)]
#[event(transparent, transparent)]
enum Twice {
    Order(Order),
}

#[derive(Event)]
#[event(transparent)]
enum WithKeys {
    #[event(topic = "shop:Shop")]
    Order(Order),
    Stock(#[event(registered)] Stock),
}

#[derive(Event)]
#[event(transparent)]
enum Shapes {
    Unit,
    Named { order: Order },
    Tuple(Order, Stock),
}

#[derive(Event)]
#[event(transparent)]
enum Generic<T> {
    Order(T),
}

#[derive(Event)]
#[event(transparent)]
enum Nothing {}

fn main() {}
