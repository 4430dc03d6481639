//! Orders to benchmark machines: the newest of each.

use muster_proto::{BenchOrder, MachineId};
use rusqlite::params;

use super::audit::{self, Event};
use super::{Store, StoreError, from_json, parsed, to_json};

impl Store {
    /// The newest order of every machine that ever got one.
    pub async fn bench_orders(&self) -> Result<Vec<BenchOrder>, StoreError> {
        self.read("list orders of benchmarks", |connection| {
            let mut statement =
                connection.prepare_cached("SELECT machine, record FROM bench_orders ORDER BY machine")?;
            let rows = statement.query_map([], |row| {
                let machine: MachineId = parsed(0, row.get_ref(0)?.as_str()?)?;
                Ok((machine, row.get::<_, String>(1)?))
            })?;
            let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            rows.into_iter()
                .map(|(machine, text)| from_json(&format!("the order of machine {machine}"), &text))
                .collect()
        })
        .await
    }

    /// Keeps these orders, each instead of its machine's earlier one, and records the events.
    pub async fn put_bench_orders(&self, orders: Vec<BenchOrder>, events: Vec<Event>) -> Result<(), StoreError> {
        self.write("keep orders of benchmarks", move |connection| {
            for order in &orders {
                connection
                    .prepare_cached(
                        "INSERT INTO bench_orders (machine, record) VALUES (?1, ?2)
                         ON CONFLICT (machine) DO UPDATE SET record = excluded.record",
                    )?
                    .execute(params![order.machine.to_string(), to_json(order)])?;
            }
            events.iter().try_for_each(|event| audit::record(connection, event))
        })
        .await
    }
}
