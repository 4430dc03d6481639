//! What operators and users read: tables and pages as text.
//!
//! Pure functions from domain types to a `String` that ends with a newline: no I/O, no clock (the moment is an argument),
//! no terminal (a [`Style`] says how wide it is and whether it takes colours). No line is wider than the style's width.
//! Texts that came from other machines lose their control characters here. JSON is not made here: it is serde's form of
//! the same types.

mod access;
mod age;
mod bar;
mod bench_orders;
mod benchmark;
mod estimate;
mod events;
mod gpus;
mod inventory;
mod layout;
mod machines;
mod metrics;
mod models;
mod observed;
mod plan;
mod prediction;
mod status;
mod style;

pub use access::{admins_table, tokens_table};
pub use age::{age, span};
pub use bench_orders::bench_orders_table;
pub use benchmark::benchmark_table;
pub use estimate::estimate_page;
pub use events::events_table;
pub use inventory::inventory_page;
pub use machines::{machine_page, machines_table};
pub use metrics::{METRICS_TYPE, MetricsPage};
pub use models::{model_page, models_table};
pub use observed::observed_page;
pub use plan::plan_page;
pub use prediction::{deviation, prediction_table};
pub use status::{agent_status_page, status_page};
pub use style::Style;
