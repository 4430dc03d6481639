//! The audit log.

use muster_proto::{AuditEvent, MachineId, ModelDigest};

use crate::age::date;
use crate::layout::{Grid, plain, sentence, toned};
use crate::style::{Style, Tone};

/// One line for each event, in the order given.
pub fn events_table(events: &[AuditEvent], style: &Style) -> String {
    if events.is_empty() {
        return sentence("nothing has happened yet", Tone::Quiet, style);
    }
    let mut grid = Grid::new(style, &["#", "WHEN", "WHAT", "DETAIL"]).right(&[0]).whole(&[0, 1, 2]);
    for event in events {
        let AuditEvent { sequence, at, actor, action, subject, detail } = event;
        let actor = match actor.split_once(':') {
            Some((kind, who)) => format!("by {kind} {}", short(who)),
            None => format!("by {actor}"),
        };
        let subject = short(subject);
        let detail = match (subject.as_str(), detail.as_str()) {
            ("", "") => actor,
            ("", one) | (one, "") => format!("{one} ({actor})"),
            (subject, detail) => format!("{subject}: {detail} ({actor})"),
        };
        grid.row(vec![toned(sequence.to_string(), Tone::Quiet), plain(date(*at)), plain(action), plain(detail)]);
    }
    grid.render()
}

/// Ids and digests as short as lists show them, everything else as it is.
fn short(text: &str) -> String {
    if text.parse::<MachineId>().is_ok() {
        return text.chars().take(8).collect();
    }
    match text.parse::<ModelDigest>() {
        Ok(digest) => format!("sha256:{}", digest.short()),
        Err(_) => text.to_owned(),
    }
}
