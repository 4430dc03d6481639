//! What Windows says of display adapters, power and firmware, as its API says it: bytes and numbers.
//!
//! It does not know what they mean. The calls load display drivers, which may hang: ask in a child process.

#[cfg(windows)]
use crate::ffi;

/// A call that Windows refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {reason}")]
pub struct WindowsError {
    /// Which call.
    pub call: &'static str,
    /// What Windows says.
    pub reason: String,
}

/// An adapter of DXGI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adapter {
    /// `Description`.
    pub description: String,
    /// `VendorId`.
    pub vendor_id: u32,
    /// `DeviceId`.
    pub device_id: u32,
    /// `SubSysId`.
    pub subsys_id: u32,
    /// `Revision`.
    pub revision: u32,
    /// `AdapterLuid` as it lies in memory.
    pub luid: [u8; 8],
    /// `DedicatedVideoMemory`, in bytes.
    pub dedicated_video: u64,
    /// `DedicatedSystemMemory`, in bytes.
    pub dedicated_system: u64,
    /// `SharedSystemMemory`, in bytes.
    pub shared_system: u64,
    /// `DXGI_ADAPTER_FLAG`.
    pub flags: u32,
    /// `QueryVideoMemoryInfo(LOCAL)`.
    pub local: Option<Segment>,
    /// `QueryVideoMemoryInfo(NON_LOCAL)`.
    pub non_local: Option<Segment>,
    /// `D3D12_FEATURE_DATA_ARCHITECTURE::UMA`.
    pub uma: Option<bool>,
    /// `CheckInterfaceSupport`'s version.
    pub driver_version: Option<i64>,
}

/// Video memory of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// In bytes.
    pub budget: u64,
    /// In bytes.
    pub usage: u64,
}

/// A display adapter of the device manager that is there now: properties as SetupAPI gives them, UTF-16 or numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DisplayDevice {
    /// `SPDRP_DRIVER`: its key below `Control\Class`.
    pub driver_key: Option<Vec<u8>>,
    /// `SPDRP_HARDWAREID`.
    pub hardware_ids: Option<Vec<u8>>,
    /// `SPDRP_LOCATION_INFORMATION`.
    pub location: Option<Vec<u8>>,
    /// `SPDRP_BUSNUMBER`.
    pub bus: Option<Vec<u8>>,
    /// `SPDRP_ADDRESS`.
    pub address: Option<Vec<u8>>,
    /// `CM_PROB_…`; 0 for none.
    pub problem: Option<u32>,
}

/// `SYSTEM_POWER_STATUS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerStatus {
    /// `ACLineStatus`.
    pub ac_line: u8,
    /// `BatteryFlag`.
    pub battery_flag: u8,
}

/// DXGI's adapters. Starts each one's Direct3D 12 driver.
///
/// # Errors
/// What Windows says.
#[cfg(windows)]
pub fn adapters() -> Result<Vec<Adapter>, WindowsError> {
    ffi::windows::adapters()
}

/// The device manager's display adapters that are there now.
///
/// # Errors
/// What Windows says.
#[cfg(windows)]
pub fn display_devices() -> Result<Vec<DisplayDevice>, WindowsError> {
    ffi::windows::display_devices()
}

/// A value below `HKEY_LOCAL_MACHINE`, of whatever type; `None` where there is none.
#[cfg(windows)]
pub fn registry_value(path: &str, name: &str) -> Option<Vec<u8>> {
    ffi::windows::registry_value(path, name)
}

/// `GetSystemPowerStatus`.
///
/// # Errors
/// What Windows says.
#[cfg(windows)]
pub fn power_status() -> Result<PowerStatus, WindowsError> {
    ffi::windows::power_status()
}

/// Whether this process is in a remote desktop session (`SM_REMOTESESSION`).
#[cfg(windows)]
pub fn is_remote_session() -> bool {
    ffi::windows::is_remote_session()
}

/// The directory domain of this machine.
#[cfg(windows)]
pub fn dns_domain() -> Option<String> {
    ffi::windows::dns_domain()
}

/// The firmware's table (SMBIOS) behind Windows' header of eight bytes.
///
/// # Errors
/// What Windows says.
#[cfg(windows)]
pub fn firmware_table() -> Result<Vec<u8>, WindowsError> {
    ffi::windows::firmware_table()
}
