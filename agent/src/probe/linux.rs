//! Linux: the firmware's table, power supplies and the session. Reads files, draws no conclusions.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::raw::{PowerSupply, ProbeResult, RawSession};

/// What is read of the firmware's table; serial numbers are nobody's business.
const DMI: [&str; 9] = [
    "sys_vendor",
    "product_name",
    "product_version",
    "product_family",
    "board_vendor",
    "board_name",
    "chassis_type",
    "chassis_vendor",
    "bios_version",
];
/// What is read of a power supply.
const POWER: [&str; 5] = ["type", "online", "status", "present", "scope"];
/// What a remote session sets in the environment of its programs.
const REMOTE: [&str; 3] = ["SSH_CONNECTION", "XRDP_SESSION", "CHROME_REMOTE_DESKTOP_SESSION"];

/// The firmware's table, below `/sys`.
pub fn dmi(sys: &Path) -> ProbeResult<BTreeMap<String, String>> {
    let folder = sys.join("class/dmi/id");
    if folder.exists() {
        return ProbeResult::Ok(attributes(&folder, &DMI));
    }
    // Boards without such a table name themselves in the device tree.
    match text(&sys.join("firmware/devicetree/base/model")) {
        Some(model) => ProbeResult::Ok([("product_name".to_owned(), model)].into()),
        None => ProbeResult::absent(format!("the kernel shows no firmware table ({})", folder.display())),
    }
}

/// Batteries and mains adapters, below `/sys`.
pub fn power(sys: &Path) -> ProbeResult<Vec<PowerSupply>> {
    let folder = sys.join("class/power_supply");
    match fs::read_dir(&folder) {
        Ok(entries) => {
            let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
            let mut supplies: Vec<PowerSupply> =
                names.map(|name| PowerSupply { attributes: attributes(&folder.join(&name), &POWER), name }).collect();
            supplies.sort_by(|a, b| a.name.cmp(&b.name));
            ProbeResult::Ok(supplies)
        }
        Err(error) => ProbeResult::absent(format!("{}: {error}", folder.display())),
    }
}

/// Who looks, and from where.
pub fn session() -> RawSession {
    let uid = rustix::process::geteuid();
    let mut groups: Vec<String> = rustix::process::getgroups()
        .unwrap_or_default()
        .into_iter()
        .chain([rustix::process::getegid()])
        .map(|gid| group_name(gid.as_raw()).unwrap_or_else(|| gid.as_raw().to_string()))
        .collect();
    groups.sort();
    groups.dedup();
    RawSession {
        user: name_of(&read("/etc/passwd"), uid.as_raw()),
        groups,
        root: uid.is_root(),
        remote: REMOTE.iter().find(|name| std::env::var_os(name).is_some()).map(|name| (*name).to_owned()),
        domain: domain(
            &read("/etc/krb5.conf"),
            Path::new("/etc/krb5.keytab").exists(),
            &read("/proc/sys/kernel/domainname"),
        ),
        container: container(),
        hypervisor: hypervisor(),
    }
}

/// A group's name by its number.
pub fn group_name(gid: u32) -> Option<String> {
    name_of(&read("/etc/group"), gid)
}

/// The name in a file like `/etc/passwd`.
fn name_of(file: &str, id: u32) -> Option<String> {
    file.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

/// The Kerberos realm of a machine that has joined one (it has a key then), else NIS' domain. `krb5.conf` alone says
/// nothing: distributions ship one with a realm of an example.
fn domain(krb5: &str, has_key: bool, nis: &str) -> Option<String> {
    let realm = krb5.lines().map(str::trim).filter(|line| !line.starts_with('#')).find_map(|line| {
        let (name, realm) = line.split_once('=')?;
        (name.trim() == "default_realm").then(|| realm.trim().to_owned())
    });
    realm
        .filter(|_| has_key)
        .or_else(|| Some(nis.trim().to_owned()).filter(|name| name != "(none)"))
        .filter(|name| !name.is_empty())
}

fn container() -> Option<String> {
    if let Some(kind) = std::env::var("container").ok().filter(|kind| !kind.is_empty()) {
        return Some(kind);
    }
    let marks = [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")];
    marks.iter().find(|(path, _)| Path::new(path).exists()).map(|(_, kind)| (*kind).to_owned())
}

fn hypervisor() -> Option<String> {
    if read("/proc/sys/kernel/osrelease").to_ascii_lowercase().contains("microsoft") {
        return Some("wsl".to_owned());
    }
    if let Some(kind) = text(Path::new("/sys/hypervisor/type")) {
        return Some(kind);
    }
    let flags = read("/proc/cpuinfo");
    let guest = flags.lines().find(|line| line.starts_with("flags")).is_some_and(|line| line.contains(" hypervisor"));
    guest.then(|| "unknown".to_owned())
}

fn attributes(folder: &Path, names: &[&str]) -> BTreeMap<String, String> {
    names.iter().filter_map(|name| Some(((*name).to_owned(), text(&folder.join(name))?))).collect()
}

fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim_matches(|letter: char| letter == '\0' || letter.is_whitespace()).to_owned())
        .filter(|text| !text.is_empty())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_needs_a_key_and_not_only_an_example() {
        let krb5 = "[libdefaults]\n# default_realm = OLD\n\tdefault_realm = CORP.EXAMPLE\n";
        assert_eq!(domain(krb5, true, "(none)\n").as_deref(), Some("CORP.EXAMPLE"));
        assert_eq!(domain(krb5, false, "(none)\n"), None);
        assert_eq!(domain("", true, "desks\n").as_deref(), Some("desks"));
    }

    #[test]
    fn names_come_from_numbers() {
        let group = "root:x:0:\nvideo:x:44:ann\nrender:x:105:\n";
        assert_eq!(name_of(group, 105).as_deref(), Some("render"));
        assert_eq!(name_of(group, 7), None);
    }
}
