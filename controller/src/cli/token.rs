//! `muster token`.

use muster_proto::{TokenRecord, wire};
use muster_reports::tokens_table;
use serde::Serialize;

use super::args::TokenCommand;
use super::output::{Output, now};
use super::{Client, Failure, there};

/// What `token create --json` prints.
#[derive(Debug, Serialize)]
struct Created {
    token: String,
    record: TokenRecord,
}

pub(super) async fn run(client: &mut Client, command: TokenCommand, output: &Output) -> Result<(), Failure> {
    match command {
        TokenCommand::Create { uses, expires, needs_acceptance, group: groups } => {
            let lifetime_seconds = expires.0.as_secs();
            let request = wire::CreateTokenRequest { uses, lifetime_seconds, needs_acceptance, groups };
            let wire::CreateTokenResponse { token, record } = client.create_token(request).await?.into_inner();
            let record = TokenRecord::try_from(there(record, "the token's record")?)?;
            let created = Created { token, record };
            if !output.json {
                let uses = if uses == 1 { "one machine".to_owned() } else { format!("{uses} machines") };
                Output::hint(&format!("For {uses}, until {}. On the machine:", created.record.expires_at));
                Output::hint("  muster-agent enrol --controller HOST:PORT --token TOKEN");
            }
            output.result(&created, |_| format!("{}\n", created.token))
        }
        TokenCommand::List => {
            let tokens = list(client).await?;
            output.result(&tokens, |style| tokens_table(&tokens, now(), style))
        }
        TokenCommand::Revoke { id } => {
            let tokens = list(client).await?;
            let wanted = id.to_ascii_lowercase();
            let found: Vec<_> = tokens.iter().filter(|token| token.id.to_string().starts_with(&wanted)).collect();
            let [token] = found[..] else {
                let what = if found.is_empty() { "no token has" } else { "several tokens have" };
                return Err(Failure::new(format!("{what} an id that starts with {id:?}: see muster token list")));
            };
            let request = wire::RevokeTokenRequest { id: token.id.as_bytes().to_vec().into() };
            let revoked = TokenRecord::try_from(client.revoke_token(request).await?.into_inner())?;
            output.result(&revoked, |_| format!("token {} is revoked\n", revoked.id))
        }
    }
}

async fn list(client: &mut Client) -> Result<Vec<TokenRecord>, Failure> {
    Ok(client.list_tokens(wire::ListTokensRequest {}).await?.into_inner().try_into()?)
}
