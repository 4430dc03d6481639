//! Vulkan's physical devices: the calls. See [`crate::vulkan`] for what they answer.

use std::ffi::CStr;

use ash::vk;
use muster_proto::Bytes;

use crate::vulkan::{VulkanAdapter, VulkanAnswers, VulkanError, VulkanHeap, VulkanKind};

pub fn ask() -> Result<VulkanAnswers, VulkanError> {
    // SAFETY: loads the system's Vulkan loader, whose initializers are as trustworthy as the system itself. Everything that
    // comes from it is dropped before `entry` at the end of this function.
    let entry = unsafe { ash::Entry::load() }.map_err(|error| VulkanError::NoLoader { reason: error.to_string() })?;
    // SAFETY: needs nothing but the loader, which is loaded.
    let loader = unsafe { entry.try_enumerate_instance_version() }.ok().flatten().unwrap_or(vk::API_VERSION_1_0);
    // What follows needs 1.1, as llama.cpp does (it wants 1.2).
    if loader < vk::API_VERSION_1_1 {
        return Err(VulkanError::Refused { call: "loader", reason: format!("version {} is too old", version(loader)) });
    }
    let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_1);
    // On macOS drivers that are not wholly conformant hide unless asked for.
    let portability = cfg!(target_os = "macos");
    let extensions: &[*const std::ffi::c_char] =
        if portability { &[ash::khr::portability_enumeration::NAME.as_ptr()] } else { &[] };
    let flags =
        if portability { vk::InstanceCreateFlags::ENUMERATE_PORTABILITY_KHR } else { vk::InstanceCreateFlags::empty() };
    let create = vk::InstanceCreateInfo::default()
        .application_info(&application)
        .enabled_extension_names(extensions)
        .flags(flags);
    // SAFETY: `create` and what it points to live until after the call; no layer is named.
    let instance = unsafe { entry.create_instance(&create, None) }.map_err(refused("vkCreateInstance"))?;
    // SAFETY: the instance is alive.
    let found = unsafe { instance.enumerate_physical_devices() }.map_err(refused("vkEnumeratePhysicalDevices"));
    let answers = found.map(|devices| VulkanAnswers {
        loader_version: Some(version(loader)),
        adapters: devices.into_iter().map(|device| adapter(&instance, device)).collect(),
    });
    // SAFETY: nothing was made of the instance that is still in use.
    unsafe { instance.destroy_instance(None) };
    answers
}

fn refused(call: &'static str) -> impl Fn(vk::Result) -> VulkanError {
    move |error| VulkanError::Refused { call, reason: format!("{error:?}") }
}

fn adapter(instance: &ash::Instance, device: vk::PhysicalDevice) -> VulkanAdapter {
    // SAFETY: `device` is one of this instance, which is alive.
    let extensions = unsafe { instance.enumerate_device_extension_properties(device) }.unwrap_or_default();
    let has = |name: &CStr| extensions.iter().any(|extension| extension.extension_name_as_c_str() == Ok(name));
    // SAFETY: as above.
    let plain = unsafe { instance.get_physical_device_properties(device) };
    let (mut id, mut driver, mut pci) = (
        vk::PhysicalDeviceIDProperties::default(),
        vk::PhysicalDeviceDriverProperties::default(),
        vk::PhysicalDevicePCIBusInfoPropertiesEXT::default(),
    );
    let has_11 = plain.api_version >= vk::API_VERSION_1_1;
    let has_driver = has_11 && (plain.api_version >= vk::API_VERSION_1_2 || has(ash::khr::driver_properties::NAME));
    let has_pci = has_11 && has(ash::ext::pci_bus_info::NAME);
    if has_11 {
        let mut all = vk::PhysicalDeviceProperties2::default().push_next(&mut id);
        if has_driver {
            all = all.push_next(&mut driver);
        }
        if has_pci {
            all = all.push_next(&mut pci);
        }
        // SAFETY: the device is of version 1.1 and has the extension of each structure in the chain, all of which live
        // until after the call.
        unsafe { instance.get_physical_device_properties2(device, &mut all) };
    }
    let text = |text: Result<&CStr, _>| text.ok().map(|text| text.to_string_lossy().trim().to_owned());
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    VulkanAdapter {
        name: text(plain.device_name_as_c_str()).unwrap_or_default(),
        vendor_id: plain.vendor_id,
        device_id: plain.device_id,
        kind: match plain.device_type {
            vk::PhysicalDeviceType::INTEGRATED_GPU => VulkanKind::Integrated,
            vk::PhysicalDeviceType::DISCRETE_GPU => VulkanKind::Discrete,
            vk::PhysicalDeviceType::VIRTUAL_GPU => VulkanKind::Virtual,
            vk::PhysicalDeviceType::CPU => VulkanKind::Cpu,
            _ => VulkanKind::Other,
        },
        api_version: Some(version(plain.api_version)),
        driver_name: some(text(driver.driver_name_as_c_str()).filter(|_| has_driver)),
        driver_info: some(text(driver.driver_info_as_c_str()).filter(|_| has_driver)),
        device_uuid: has_11.then(|| hexadecimal(&id.device_uuid)),
        luid: (has_11 && id.device_luid_valid == vk::TRUE).then(|| hexadecimal(&id.device_luid)),
        pci_bus_id: has_pci.then(|| {
            format!("{:04x}:{:02x}:{:02x}.{:x}", pci.pci_domain, pci.pci_bus, pci.pci_device, pci.pci_function)
        }),
        heaps: heaps(instance, device, has_11 && has(ash::ext::memory_budget::NAME)),
    }
}

fn heaps(instance: &ash::Instance, device: vk::PhysicalDevice, has_budget: bool) -> Vec<VulkanHeap> {
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let memory = if has_budget {
        let mut all = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
        // SAFETY: the device is of this instance, of version 1.1, and has the extension of the structure in the chain, which
        // lives until after the call.
        unsafe { instance.get_physical_device_memory_properties2(device, &mut all) };
        all.memory_properties
    } else {
        // SAFETY: the device is of this instance, which is alive.
        unsafe { instance.get_physical_device_memory_properties(device) }
    };
    let heaps = memory.memory_heaps_as_slice().iter().enumerate();
    heaps
        .map(|(index, heap)| VulkanHeap {
            size: Bytes::new(heap.size),
            device_local: heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL),
            budget: has_budget.then(|| Bytes::new(budget.heap_budget[index])),
            usage: has_budget.then(|| Bytes::new(budget.heap_usage[index])),
        })
        .collect()
}

fn version(number: u32) -> String {
    format!("{}.{}.{}", vk::api_version_major(number), vk::api_version_minor(number), vk::api_version_patch(number))
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With Mesa's software device installed it is among them; without a loader the reason says so.
    #[test]
    fn asks_what_is_installed() {
        match ask() {
            Ok(answers) => {
                assert!(answers.loader_version.is_some());
                for adapter in &answers.adapters {
                    assert!(!adapter.name.is_empty() && !adapter.heaps.is_empty(), "{adapter:?}");
                    let software = adapter.name.contains("llvmpipe");
                    assert_eq!(software, adapter.kind == VulkanKind::Cpu, "{adapter:?}");
                }
            }
            Err(VulkanError::NoLoader { reason }) => assert!(!reason.is_empty()),
            Err(VulkanError::Refused { call, .. }) => assert_eq!(call, "vkCreateInstance"),
        }
    }

    #[test]
    fn versions_and_identifiers_read_as_elsewhere() {
        assert_eq!(version(vk::make_api_version(0, 1, 3, 239)), "1.3.239");
        assert_eq!(hexadecimal(&[0, 0x1f, 0xff]), "001fff");
    }
}
