//! Windows: the calls that need its API. See [`crate::windows`] for what they answer.

use std::ffi::c_void;

use windows::Win32::Devices::DeviceAndDriverInstallation as setup;
use windows::Win32::Foundation::HWND;
use windows::Win32::Graphics::Direct3D::D3D_FEATURE_LEVEL_11_0;
use windows::Win32::Graphics::Direct3D12::{
    D3D12_FEATURE_ARCHITECTURE, D3D12_FEATURE_DATA_ARCHITECTURE, D3D12CreateDevice, ID3D12Device,
};
use windows::Win32::Graphics::Dxgi::{
    CreateDXGIFactory1, DXGI_ERROR_NOT_FOUND, DXGI_MEMORY_SEGMENT_GROUP_LOCAL, DXGI_MEMORY_SEGMENT_GROUP_NON_LOCAL,
    DXGI_QUERY_VIDEO_MEMORY_INFO, IDXGIAdapter1, IDXGIAdapter3, IDXGIDevice, IDXGIFactory1,
};
use windows::Win32::System::Power::{GetSystemPowerStatus, SYSTEM_POWER_STATUS};
use windows::Win32::System::Registry::{HKEY_LOCAL_MACHINE, RRF_RT_ANY, RegGetValueW};
use windows::Win32::System::SystemInformation::{
    ComputerNameDnsDomain, GetComputerNameExW, GetSystemFirmwareTable, RSMB,
};
use windows::Win32::UI::WindowsAndMessaging::{GetSystemMetrics, SM_REMOTESESSION};
use windows::core::{HSTRING, Interface as _, PCWSTR, PWSTR};

use crate::windows::{Adapter, DisplayDevice, PowerStatus, Segment, WindowsError};

/// The most that is read of one value.
const MOST: usize = 64 << 10;
/// Of an entry of SetupAPI's lists, which wants it in the entry.
#[allow(clippy::cast_possible_truncation, reason = "tens of bytes")]
const ENTRY_SIZE: u32 = size_of::<setup::SP_DEVINFO_DATA>() as u32;

pub fn adapters() -> Result<Vec<Adapter>, WindowsError> {
    // SAFETY: needs nothing; the factory is counted by reference and lives as long as what comes from it.
    let factory: IDXGIFactory1 = unsafe { CreateDXGIFactory1() }.map_err(refused("CreateDXGIFactory1"))?;
    let mut adapters = Vec::new();
    for index in 0.. {
        // SAFETY: the factory is alive; past the last adapter it says so.
        match unsafe { factory.EnumAdapters1(index) } {
            Ok(found) => adapters.push(adapter(&found)?),
            Err(error) if error.code() == DXGI_ERROR_NOT_FOUND => break,
            Err(error) => return Err(refused("EnumAdapters1")(error)),
        }
    }
    Ok(adapters)
}

fn adapter(adapter: &IDXGIAdapter1) -> Result<Adapter, WindowsError> {
    // SAFETY: the adapter is alive, as it is for all calls below.
    let told = unsafe { adapter.GetDesc1() }.map_err(refused("GetDesc1"))?;
    let mut luid = [0; 8];
    luid[..4].copy_from_slice(&told.AdapterLuid.LowPart.to_le_bytes());
    luid[4..].copy_from_slice(&told.AdapterLuid.HighPart.to_le_bytes());
    let memory = adapter.cast::<IDXGIAdapter3>().ok();
    let segment = |group| {
        let mut info = DXGI_QUERY_VIDEO_MEMORY_INFO::default();
        // SAFETY: `info` lives until after the call.
        unsafe { memory.as_ref()?.QueryVideoMemoryInfo(0, group, &raw mut info) }.ok()?;
        Some(Segment { budget: info.Budget, usage: info.CurrentUsage })
    };
    Ok(Adapter {
        description: until_zero(&told.Description),
        vendor_id: told.VendorId,
        device_id: told.DeviceId,
        subsys_id: told.SubSysId,
        revision: told.Revision,
        luid,
        dedicated_video: told.DedicatedVideoMemory as u64,
        dedicated_system: told.DedicatedSystemMemory as u64,
        shared_system: told.SharedSystemMemory as u64,
        flags: told.Flags,
        local: segment(DXGI_MEMORY_SEGMENT_GROUP_LOCAL),
        non_local: segment(DXGI_MEMORY_SEGMENT_GROUP_NON_LOCAL),
        uma: uma(adapter),
        // SAFETY: the name of an interface that lives for ever.
        driver_version: unsafe { adapter.CheckInterfaceSupport(&IDXGIDevice::IID) }.ok(),
    })
}

/// Whether it computes in main memory, as Direct3D 12 says; `None` where it has no such driver.
fn uma(adapter: &IDXGIAdapter1) -> Option<bool> {
    let mut device: Option<ID3D12Device> = None;
    // SAFETY: `device` lives until after the call.
    unsafe { D3D12CreateDevice(adapter, D3D_FEATURE_LEVEL_11_0, &raw mut device) }.ok()?;
    let mut told = D3D12_FEATURE_DATA_ARCHITECTURE::default();
    let size = u32::try_from(size_of_val(&told)).ok()?;
    // SAFETY: the structure is the one of this question, of the size that is told.
    unsafe { device?.CheckFeatureSupport(D3D12_FEATURE_ARCHITECTURE, (&raw mut told).cast::<c_void>(), size) }.ok()?;
    Some(told.UMA.as_bool())
}

pub fn display_devices() -> Result<Vec<DisplayDevice>, WindowsError> {
    let class = setup::GUID_DEVCLASS_DISPLAY;
    // SAFETY: `class` lives until after the call; the list is ended at the end of this function.
    let list = unsafe {
        setup::SetupDiGetClassDevsW(Some(&raw const class), PCWSTR::null(), None::<HWND>, setup::DIGCF_PRESENT)
    }
    .map_err(refused("SetupDiGetClassDevsW"))?;
    let mut devices = Vec::new();
    for index in 0.. {
        let mut entry = setup::SP_DEVINFO_DATA { cbSize: ENTRY_SIZE, ..Default::default() };
        // SAFETY: the list is alive, `entry` has its size in it.
        if unsafe { setup::SetupDiEnumDeviceInfo(list, index, &raw mut entry) }.is_err() {
            break;
        }
        let property = |which| {
            let mut bytes = vec![0; MOST];
            let mut size = 0;
            // SAFETY: list and entry are alive; the buffer's size goes with it.
            unsafe {
                setup::SetupDiGetDeviceRegistryPropertyW(
                    list,
                    &raw const entry,
                    which,
                    None,
                    Some(&mut bytes),
                    Some(&raw mut size),
                )
            }
            .ok()?;
            bytes.truncate(size as usize);
            Some(bytes)
        };
        let (mut status, mut problem) = (setup::CM_DEVNODE_STATUS_FLAGS::default(), setup::CM_PROB::default());
        // SAFETY: both live until after the call.
        let told = unsafe { setup::CM_Get_DevNode_Status(&raw mut status, &raw mut problem, entry.DevInst, 0) };
        devices.push(DisplayDevice {
            driver_key: property(setup::SPDRP_DRIVER),
            hardware_ids: property(setup::SPDRP_HARDWAREID),
            location: property(setup::SPDRP_LOCATION_INFORMATION),
            bus: property(setup::SPDRP_BUSNUMBER),
            address: property(setup::SPDRP_ADDRESS),
            problem: (told == setup::CR_SUCCESS).then_some(problem.0),
        });
    }
    // SAFETY: made above, and nothing of it is used any more.
    let _ = unsafe { setup::SetupDiDestroyDeviceInfoList(list) };
    Ok(devices)
}

pub fn registry_value(path: &str, name: &str) -> Option<Vec<u8>> {
    let (path, name) = (HSTRING::from(path), HSTRING::from(name));
    let mut bytes = vec![0_u8; MOST];
    let mut size = u32::try_from(MOST).ok()?;
    let into = Some(bytes.as_mut_ptr().cast::<c_void>());
    // SAFETY: the buffer is of the size that is told, and lives until after the call, as the names do.
    let done = unsafe { RegGetValueW(HKEY_LOCAL_MACHINE, &path, &name, RRF_RT_ANY, None, into, Some(&raw mut size)) };
    done.ok().ok()?;
    bytes.truncate(size as usize);
    Some(bytes)
}

pub fn power_status() -> Result<PowerStatus, WindowsError> {
    let mut told = SYSTEM_POWER_STATUS::default();
    // SAFETY: `told` lives until after the call.
    unsafe { GetSystemPowerStatus(&raw mut told) }.map_err(refused("GetSystemPowerStatus"))?;
    Ok(PowerStatus { ac_line: told.ACLineStatus, battery_flag: told.BatteryFlag })
}

pub fn is_remote_session() -> bool {
    // SAFETY: takes a number.
    unsafe { GetSystemMetrics(SM_REMOTESESSION) != 0 }
}

pub fn dns_domain() -> Option<String> {
    let mut text = [0_u16; 256];
    let mut size = 256;
    // SAFETY: the buffer is of the size that is told.
    unsafe { GetComputerNameExW(ComputerNameDnsDomain, Some(PWSTR(text.as_mut_ptr())), &raw mut size) }.ok()?;
    Some(until_zero(&text)).filter(|name| !name.is_empty())
}

pub fn firmware_table() -> Result<Vec<u8>, WindowsError> {
    let mut bytes = vec![0; MOST];
    // SAFETY: the buffer's size goes with it.
    let size = unsafe { GetSystemFirmwareTable(RSMB, 0, Some(&mut bytes)) } as usize;
    if size == 0 || size > bytes.len() {
        return Err(WindowsError { call: "GetSystemFirmwareTable", reason: format!("{size} bytes") });
    }
    bytes.truncate(size);
    Ok(bytes)
}

fn refused(call: &'static str) -> impl Fn(windows::core::Error) -> WindowsError {
    move |error| WindowsError { call, reason: format!("{} ({:#010x})", error.message(), error.code().0) }
}

fn until_zero(text: &[u16]) -> String {
    String::from_utf16_lossy(text.split(|letter| *letter == 0).next().unwrap_or_default())
}
