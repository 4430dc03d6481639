//! Windows: display adapters of DXGI and of the registry, power, firmware and session. Calls are behind `cfg(windows)` (the
//! unsafe ones in `muster_engine::windows`); what reads their answers ([`parse`], [`smbios`]) compiles and is tested
//! everywhere. It does not know what the answers mean.

#[cfg(any(windows, test))]
mod parse;
#[cfg(any(windows, test))]
mod smbios;

#[cfg(windows)]
pub use calls::{dmi, dxgi, power, registry, session};

#[cfg(windows)]
mod calls {
    use std::collections::BTreeMap;

    use muster_engine::windows as api;

    use super::super::raw::{DxgiAdapter, PowerSupply, ProbeResult, RawSession, RegistryAdapter};
    use super::{parse, smbios};

    /// Adapters of DXGI.
    pub fn dxgi() -> ProbeResult<Vec<DxgiAdapter>> {
        match api::adapters() {
            Ok(adapters) => ProbeResult::Ok(adapters.iter().map(parse::adapter).collect()),
            Err(error) => ProbeResult::failed(error.to_string()),
        }
    }

    /// Display adapters of the registry, those that are there now.
    pub fn registry() -> ProbeResult<Vec<RegistryAdapter>> {
        match api::display_devices() {
            Ok(devices) => {
                ProbeResult::Ok(devices.iter().map(|device| parse::registry(device, api::registry_value)).collect())
            }
            Err(error) => ProbeResult::failed(error.to_string()),
        }
    }

    /// Battery and mains.
    pub fn power(_: &std::path::Path) -> ProbeResult<Vec<PowerSupply>> {
        match api::power_status() {
            Ok(status) => ProbeResult::Ok(parse::power(status)),
            Err(error) => ProbeResult::failed(error.to_string()),
        }
    }

    /// The firmware's table.
    pub fn dmi(_: &std::path::Path) -> ProbeResult<BTreeMap<String, String>> {
        match api::firmware_table() {
            Ok(table) => ProbeResult::Ok(smbios::read(&table)),
            Err(error) => ProbeResult::failed(error.to_string()),
        }
    }

    /// Who looks, and from where.
    pub fn session() -> RawSession {
        RawSession {
            user: std::env::var("USERNAME").ok(),
            remote: api::is_remote_session().then(|| "SM_REMOTESESSION".to_owned()),
            domain: api::dns_domain(),
            ..RawSession::default()
        }
    }
}
