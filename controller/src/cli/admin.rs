//! `muster admin`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use muster_engine::host::atomic_file::write_atomic;
use muster_proto::{AdminName, AdminRecord, wire};
use muster_reports::admins_table;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::Serialize;

use super::args::AdminCommand;
use super::output::{Output, now};
use super::{Client, Failure, there};

/// What `admin add --json` prints.
#[derive(Debug, Serialize)]
struct Added {
    identity: PathBuf,
    record: AdminRecord,
}

pub(super) async fn run(client: &mut Client, command: AdminCommand, output: &Output) -> Result<(), Failure> {
    match command {
        AdminCommand::Add { name, out } => add(client, &name, out, output).await,
        AdminCommand::List => {
            let admins: Vec<AdminRecord> =
                client.list_admins(wire::ListAdminsRequest {}).await?.into_inner().try_into()?;
            output.result(&admins, |style| admins_table(&admins, now(), style))
        }
        AdminCommand::Revoke { name } => {
            let answer = client.revoke_admin(wire::RevokeAdminRequest { name }).await?;
            let record = AdminRecord::try_from(answer.into_inner())?;
            output.result(&record, |_| format!("admin {} is revoked\n", record.name))
        }
    }
}

async fn add(client: &mut Client, name: &str, out: Option<PathBuf>, output: &Output) -> Result<(), Failure> {
    let name: AdminName = name.parse().map_err(|error: muster_proto::IdError| Failure::usage(error.to_string()))?;
    let directory = out.unwrap_or_else(|| PathBuf::from(format!("muster-{name}")));
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| Failure::of(&error))?;
    let request = CertificateParams::default().serialize_request(&key).map_err(|error| Failure::of(&error))?;
    let write = |file: &str, content: &str| {
        let path = directory.join(file);
        write_atomic(&path, content.as_bytes())
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
    };
    // The directory first: a certificate that cannot be written down would be lost.
    create(&directory)?;
    write("key.pem", &key.serialize_pem())?;
    let request = wire::AddAdminRequest { name: name.to_string(), certificate_request: request.der().to_vec().into() };
    let added = match client.add_admin(request).await {
        Ok(added) => added.into_inner(),
        Err(status) => {
            let _ = fs::remove_file(directory.join("key.pem"));
            let _ = fs::remove_dir(&directory);
            return Err(status.into());
        }
    };
    write("cert.pem", &pem(&added.certificate))?;
    write("ca.pem", &pem(&added.ca_certificate))?;
    let record = AdminRecord::try_from(there(added.record, "the admin's record")?)?;
    let added = Added { identity: directory, record };
    if !output.json {
        Output::hint(&format!("Until {}. From elsewhere:", added.record.expires_at));
        Output::hint(&format!("  muster --controller HOST:PORT --identity {} status", added.identity.display()));
    }
    output.result(&added, |_| format!("{}\n", added.identity.display()))
}

/// A new private directory; one that holds an identity is not overwritten.
fn create(directory: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    let failure = |error: &io::Error| Failure::new(format!("cannot create {}: {error}", directory.display()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| failure(&error))?;
    if directory.join("key.pem").exists() {
        return Err(Failure::new(format!(
            "{} holds an identity: name another directory with --out DIR",
            directory.display()
        )));
    }
    Ok(())
}

fn pem(der: &[u8]) -> String {
    let base64 = BASE64.encode(der);
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
