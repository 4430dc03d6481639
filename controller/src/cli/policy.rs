//! `muster policy`.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use muster_proto::{PolicyRecord, wire};

use super::args::PolicyCommand;
use super::output::Output;
use super::{Client, Failure};

pub(super) async fn run(client: &mut Client, command: PolicyCommand, output: &Output) -> Result<(), Failure> {
    match command {
        PolicyCommand::Apply { file } => {
            let toml = read(&file)?;
            let answer = client.apply_policy(wire::ApplyPolicyRequest { toml }).await?;
            let record = PolicyRecord::try_from(answer.into_inner())?;
            if !output.json {
                Output::hint("See what it comes to with muster plan show.");
            }
            output.result(&record, |_| format!("policy revision {} is in force\n", record.revision))
        }
        PolicyCommand::Show => {
            let answer = client.get_policy(wire::GetPolicyRequest {}).await?;
            let record = PolicyRecord::try_from(answer.into_inner())?;
            if record.revision == 0 && !output.json {
                Output::hint("No policy was applied yet: write one and run muster policy apply FILE.");
                return Ok(());
            }
            output.result(&record, |_| format!("{}\n", record.toml.trim_end()))
        }
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(wire::POLICY_MAX as u64 + 1).read_to_string(&mut text).map(drop)
    } else {
        fs::read_to_string(file).map(|content| text = content)
    };
    read.map_err(|error| Failure::new(format!("cannot read {}: {error}", file.display())))?;
    Ok(text)
}
