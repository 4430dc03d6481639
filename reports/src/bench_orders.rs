//! Orders to benchmark machines.

use comfy_table::Cell;
use muster_proto::{BenchOrder, BenchOrderState, Timestamp};

use crate::age::{age, span};
use crate::layout::{Grid, plain, sentence, toned};
use crate::style::{Style, Tone};

/// One line for each order, in the order given.
pub fn bench_orders_table(orders: &[BenchOrder], now: Timestamp, style: &Style) -> String {
    if orders.is_empty() {
        return sentence("there is no accepted machine to measure", Tone::Quiet, style);
    }
    let mut grid = Grid::new(style, &["NAME", "ID", "KIND", "BENCHMARK"]).whole(&[1, 2]);
    for order in orders {
        grid.row(vec![
            plain(&order.hostname),
            plain(&order.machine.to_string()[..8]),
            plain(order.kind.to_string()),
            order_cell(order, now),
        ]);
    }
    grid.render()
}

/// How far an order is, in a few words.
pub(crate) fn order_cell(order: &BenchOrder, now: Timestamp) -> Cell {
    let because = |word: &str| order.reason.as_ref().map_or_else(|| word.to_owned(), |why| format!("{word}: {why}"));
    match order.state {
        BenchOrderState::Waiting => {
            let left = span(order.expires_at.since(now));
            toned(format!("waits for the machine, {left} more at most"), Tone::Waiting)
        }
        BenchOrderState::Running => {
            let percent = (order.fraction.unwrap_or(0.0) * 100.0).round();
            let step = order.step.as_deref().unwrap_or("begins");
            toned(format!("runs, {percent:.0} %: {step}"), Tone::Plain)
        }
        BenchOrderState::Done => {
            let when = order.ended_at.map_or_else(String::new, |ended| format!(" {}", age(ended, now)));
            toned(format!("done{when}"), Tone::Good)
        }
        BenchOrderState::Refused => toned(because("not measured"), Tone::Bad),
        BenchOrderState::Expired => toned("expired: the machine did not come in time", Tone::Bad),
        _ => plain(because(&order.state.to_string())),
    }
}
