//! What kind of machine it is, and where it gets its power from.

use muster_proto::{Chassis, ChassisKind};

use super::super::raw::{ProbeResult, RawMachine};

/// What firmware says where its maker wrote nothing.
const PLACEHOLDERS: [&str; 10] = [
    "to be filled by o.e.m.",
    "to be filled by o.e.m",
    "default string",
    "system manufacturer",
    "system product name",
    "system version",
    "not specified",
    "not applicable",
    "oem",
    "o.e.m.",
];
/// Vendors and products of virtual machines, in small letters.
const VIRTUAL: [&str; 14] = [
    "qemu",
    "kvm",
    "vmware",
    "virtualbox",
    "innotek",
    "xen",
    "bochs",
    "parallels",
    "virtual machine",
    "amazon ec2",
    "google compute engine",
    "openstack",
    "bhyve",
    "hvm domu",
];

/// From firmware's table, power supplies and session.
pub fn chassis(raw: &RawMachine) -> Chassis {
    let (battery, on_mains) = power(raw);
    let vendor = said(raw, "sys_vendor").or_else(|| said(raw, "board_vendor"));
    // Lenovo's product name is a number; people know the version.
    let lenovo = vendor.as_deref().is_some_and(|vendor| vendor.eq_ignore_ascii_case("lenovo"));
    let model = said(raw, "product_version").filter(|_| lenovo).or_else(|| said(raw, "product_name"));
    Chassis {
        kind: kind(raw, vendor.as_deref(), model.as_deref(), battery),
        model: model.or_else(|| said(raw, "board_name")),
        vendor,
        domain: raw.session.domain.clone(),
        battery,
        on_mains,
    }
}

fn said(raw: &RawMachine, name: &str) -> Option<String> {
    let text = raw.dmi.ok()?.get(name)?.trim();
    let empty = text.is_empty() || PLACEHOLDERS.contains(&text.to_ascii_lowercase().as_str());
    (!empty).then(|| text.to_owned())
}

fn kind(raw: &RawMachine, vendor: Option<&str>, model: Option<&str>, battery: Option<bool>) -> Option<ChassisKind> {
    let text = [vendor, model].into_iter().flatten().collect::<Vec<_>>().join(" ").to_ascii_lowercase();
    if raw.session.hypervisor.is_some() || VIRTUAL.iter().any(|name| text.contains(name)) {
        return Some(ChassisKind::Virtual);
    }
    // Codes of SMBIOS 3.6, table 17.
    let told = said(raw, "chassis_type").and_then(|code| code.parse::<u32>().ok()).and_then(|code| match code {
        3..=7 | 24 => Some(ChassisKind::Desktop),
        8..=12 | 14 | 30..=32 => Some(ChassisKind::Laptop),
        13 | 15 | 16 | 35 | 36 => Some(ChassisKind::Compact),
        17 | 23 | 25 | 28 | 29 => Some(ChassisKind::Server),
        18..=22 | 26 | 27 | 33 | 34 => Some(ChassisKind::Other),
        _ => None,
    });
    told.or_else(|| {
        let names = [
            ("macbook", ChassisKind::Laptop),
            ("macmini", ChassisKind::Compact),
            ("mac mini", ChassisKind::Compact),
            ("imac", ChassisKind::Compact),
            ("mac studio", ChassisKind::Compact),
            ("macpro", ChassisKind::Desktop),
            ("mac pro", ChassisKind::Desktop),
        ];
        names.iter().find(|(name, _)| text.contains(name)).map(|(_, kind)| *kind)
    })
    // Only laptops have one, beyond those that firmware names.
    .or((battery == Some(true)).then_some(ChassisKind::Laptop))
}

/// Whether there is a battery of the machine's own, and whether it is on mains.
fn power(raw: &RawMachine) -> (Option<bool>, Option<bool>) {
    let ProbeResult::Ok(supplies) = &raw.power else { return (None, None) };
    // A mouse's battery has the scope `Device`.
    let own = || supplies.iter().filter(|supply| supply.attributes.get("scope").is_none_or(|scope| scope != "Device"));
    let is = |name: &str, value: &str| {
        let (name, value) = (name.to_owned(), value.to_owned());
        move |supply: &&super::super::raw::PowerSupply| supply.attributes.get(&name).is_some_and(|text| *text == value)
    };
    let has =
        |supply: &&super::super::raw::PowerSupply| supply.attributes.get("present").is_none_or(|text| text != "0");
    let batteries: Vec<_> = own().filter(is("type", "Battery")).filter(has).collect();
    let battery = !batteries.is_empty();
    let mains: Vec<_> = own().filter(|supply| !is("type", "Battery")(supply)).collect();
    let discharging = batteries.iter().any(|battery| is("status", "Discharging")(battery));
    let on_mains = if mains.iter().any(|supply| is("online", "1")(supply)) {
        Some(true)
    } else if discharging {
        Some(false)
    } else if battery && !mains.is_empty() {
        // A docking station may feed it without saying so.
        Some(batteries.iter().any(|battery| is("status", "Charging")(battery) || is("status", "Full")(battery)))
    } else {
        Some(true)
    };
    (Some(battery), on_mains)
}
