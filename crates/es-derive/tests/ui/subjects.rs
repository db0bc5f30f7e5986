use es_derive::Event;

#[derive(Event)]
#[event(topic = "shop:Noted", subject = about)]
struct WithoutErased {
    about: String,
}

#[derive(Event)]
#[event(topic = "shop:Customer")]
enum Customer {
    #[event(erased = Customer::forget)]
    WithoutSubject { name: String },
    #[event(subject = "name", erased = Customer::forget)]
    InQuotes { name: String },
    #[event(subject = name, subject = name)]
    Twice { name: String },
}

#[derive(Event)]
#[event(topic = "shop:Customer", subject = name)]
enum OfEnum {
    Registered { name: String },
}

fn main() {}
