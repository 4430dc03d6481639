//! macOS: devices of Metal, the model, the power source and the session. Calls are behind `cfg(target_os = "macos")`; what
//! reads their answers ([`parse`]) compiles and is tested everywhere. It does not know what the answers mean.

#[cfg(target_os = "macos")]
pub use calls::{dmi, metal, power, session};

#[cfg(any(target_os = "macos", test))]
mod parse {
    use super::super::raw::PowerSupply;

    /// `pmset -g batt` → power supplies in the attributes that Linux has.
    pub fn power(text: &str) -> Vec<PowerSupply> {
        let supply = |name: &str, attributes: &[(&str, &str)]| PowerSupply {
            name: name.to_owned(),
            attributes: attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        };
        let mut supplies = Vec::new();
        for line in text.lines() {
            if let Some(source) = line.strip_prefix("Now drawing from '") {
                let online = if source.starts_with("AC") { "1" } else { "0" };
                supplies.push(supply("AC", &[("type", "Mains"), ("online", online)]));
            } else if let Some((name, rest)) =
                line.trim_start().strip_prefix('-').and_then(|line| line.split_once(" ("))
            {
                let words: Vec<&str> = rest.split(';').map(str::trim).collect();
                let status = match words.get(1).copied() {
                    Some("discharging") => "Discharging",
                    Some("charging" | "finishing charge") => "Charging",
                    Some("charged") => "Full",
                    _ => "Not charging",
                };
                let present = if rest.contains("present: false") { "0" } else { "1" };
                // What is on a cable of its own is no battery of the machine.
                let scope = if name.starts_with("InternalBattery") { "System" } else { "Device" };
                let attributes = [("type", "Battery"), ("status", status), ("present", present), ("scope", scope)];
                supplies.push(supply(name, &attributes));
            }
        }
        supplies
    }

    /// The name that Apple sells it by, of `ioreg -rd1 -n product`: `"product-name" = <"Mac Studio (2023)">`.
    pub fn product_name(text: &str) -> Option<String> {
        let line = text.lines().find_map(|line| line.split_once("\"product-name\" = "))?;
        let name = line.1.trim().trim_matches(|letter| matches!(letter, '<' | '>' | '"'));
        Some(name.to_owned()).filter(|name| !name.is_empty())
    }
}

#[cfg(target_os = "macos")]
mod calls {
    use std::collections::BTreeMap;
    use std::process::Command;

    use muster_proto::Bytes;
    use objc2_metal::{MTLCopyAllDevices, MTLDevice, MTLGPUFamily};

    use super::super::raw::{MetalDevice, PowerSupply, ProbeResult, RawSession};
    use super::parse;

    /// GPU families, newest first.
    const FAMILIES: [(MTLGPUFamily, &str); 11] = [
        (MTLGPUFamily::Apple10, "apple10"),
        (MTLGPUFamily::Apple9, "apple9"),
        (MTLGPUFamily::Apple8, "apple8"),
        (MTLGPUFamily::Apple7, "apple7"),
        (MTLGPUFamily::Apple6, "apple6"),
        (MTLGPUFamily::Apple5, "apple5"),
        (MTLGPUFamily::Apple4, "apple4"),
        (MTLGPUFamily::Apple3, "apple3"),
        (MTLGPUFamily::Apple2, "apple2"),
        (MTLGPUFamily::Mac2, "mac2"),
        (MTLGPUFamily::Common1, "common1"),
    ];

    /// Devices of Metal.
    pub fn metal() -> ProbeResult<Vec<MetalDevice>> {
        let devices = MTLCopyAllDevices().to_vec();
        let devices = devices.iter().map(|device| MetalDevice {
            name: device.name().to_string(),
            registry_id: device.registryID(),
            recommended_max_working_set: Bytes::new(device.recommendedMaxWorkingSetSize()),
            current_allocated: Some(Bytes::new(device.currentAllocatedSize() as u64)),
            max_buffer_length: Bytes::new(device.maxBufferLength() as u64),
            unified_memory: device.hasUnifiedMemory(),
            low_power: device.isLowPower(),
            removable: device.isRemovable(),
            headless: device.isHeadless(),
            family: FAMILIES
                .iter()
                .find(|(family, _)| device.supportsFamily(*family))
                .map(|(_, name)| (*name).to_owned()),
        });
        ProbeResult::Ok(devices.collect())
    }

    /// Maker, model and the name that it is sold by.
    pub fn dmi(_: &std::path::Path) -> ProbeResult<BTreeMap<String, String>> {
        let model = match say("/usr/sbin/sysctl", &["-n", "hw.model"]) {
            Ok(text) => text.trim().to_owned(),
            Err(reason) => return ProbeResult::failed(reason),
        };
        let sold_as =
            say("/usr/sbin/ioreg", &["-rd1", "-n", "product"]).ok().and_then(|text| parse::product_name(&text));
        ProbeResult::Ok(
            [
                ("sys_vendor".to_owned(), "Apple Inc.".to_owned()),
                ("product_name".to_owned(), sold_as.unwrap_or_else(|| model.clone())),
                ("product_version".to_owned(), model),
            ]
            .into(),
        )
    }

    /// Battery and mains.
    pub fn power(_: &std::path::Path) -> ProbeResult<Vec<PowerSupply>> {
        match say("/usr/bin/pmset", &["-g", "batt"]) {
            Ok(text) => ProbeResult::Ok(parse::power(&text)),
            Err(reason) => ProbeResult::failed(reason),
        }
    }

    /// Who looks, and from where.
    pub fn session() -> RawSession {
        RawSession {
            user: std::env::var("USER").ok(),
            root: rustix::process::geteuid().is_root(),
            remote: std::env::var_os("SSH_CONNECTION").map(|_| "SSH_CONNECTION".to_owned()),
            ..RawSession::default()
        }
    }

    /// What a program of the system prints.
    fn say(program: &str, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
        if !output.status.success() {
            return Err(format!("{program} {}: {}", arguments.join(" "), output.status));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn power_has_linux_words() {
        let laptop = "Now drawing from 'Battery Power'\n -InternalBattery-0 (id=4653155)\t85%; discharging; 4:12 remaining present: true\n";
        let supplies = parse::power(laptop);
        let [mains, battery] = &supplies[..] else { panic!("{supplies:?}") };
        assert_eq!((mains.attributes["type"].as_str(), mains.attributes["online"].as_str()), ("Mains", "0"));
        assert_eq!(
            (battery.name.as_str(), battery.attributes["status"].as_str()),
            ("InternalBattery-0", "Discharging")
        );
        let full =
            "Now drawing from 'AC Power'\n -InternalBattery-0 (id=1)\t100%; charged; 0:00 remaining present: true\n";
        assert_eq!(parse::power(full)[1].attributes["status"], "Full");
        let desktop = parse::power("Now drawing from 'AC Power'\n");
        assert_eq!((desktop.len(), desktop[0].attributes["online"].as_str()), (1, "1"));
    }

    #[test]
    fn the_name_that_it_is_sold_by() {
        let text = "+-o product  <class IOService>\n    {\n      \"product-name\" = <\"MacBook Pro (14-inch, Nov 2023)\">\n    }\n";
        assert_eq!(parse::product_name(text).as_deref(), Some("MacBook Pro (14-inch, Nov 2023)"));
        assert_eq!(parse::product_name("nothing"), None);
    }
}
