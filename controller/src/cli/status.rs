//! `muster status`.

use muster_proto::{ControllerStatus, wire};
use muster_reports::status_page;

use super::output::{Output, now};
use super::{Client, Failure};

pub(super) async fn show(client: &mut Client, output: &Output) -> Result<(), Failure> {
    let answer = client.get_status(wire::GetStatusRequest {}).await?;
    let status = ControllerStatus::try_from(answer.into_inner())?;
    output.result(&status, |style| status_page(&status, now(), style))
}
