//! The wire: what goes out comes back, what a newer or older peer sends is taken, what a hostile one sends is refused.

mod errors;
mod frozen;
mod peers;
mod round_trips;
mod samples;
