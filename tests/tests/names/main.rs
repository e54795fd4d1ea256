//! What is outside goes by the name that DNS gave for it, where it is one alone.

mod hostile;
mod resolvers;
mod stage;
mod times;
mod tls;
