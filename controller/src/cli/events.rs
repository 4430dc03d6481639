//! `muster events`.

use muster_proto::{AuditEvent, wire};
use muster_reports::events_table;

use super::args::EventsArgs;
use super::output::Output;
use super::{Client, Failure};

pub(super) async fn list(client: &mut Client, arguments: &EventsArgs, output: &Output) -> Result<(), Failure> {
    let request = wire::ListAuditEventsRequest { after: arguments.after, limit: arguments.limit };
    let events: Vec<AuditEvent> = client.list_audit_events(request).await?.into_inner().try_into()?;
    output.result(&events, |style| events_table(&events, style))
}
